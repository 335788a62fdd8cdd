"""The devices of a Pluto's context, and its description in XML.

Names of devices, channels, attributes and files, and the formats of the samples, are those that libiio gives of a Pluto,
since programs look them up: https://wiki.analog.com/university/tools/pluto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final
from xml.sax.saxutils import quoteattr

from link.provenance import code_version
from link.radio.iiod.attributes import Attribute, Channel, Choice, Device, Measured, Number, Setting, constant
from link.radio.iiod.phy import FpgaRate, Phy, Tone

PHY, XADC, TX, RX = "iio:device0", "iio:device1", "iio:device2", "iio:device3"
TX_FORMAT: Final = "le:S16/16>>0"
RX_FORMAT: Final = "le:S12/16>>0"
MODEL: Final = "PlutoSDR simulated by hardpath"

_DTD: Final = (
    "<!DOCTYPE context [<!ELEMENT context (device | context-attribute)*><!ELEMENT context-attribute EMPTY>"
    "<!ELEMENT device (channel | attribute | debug-attribute | buffer-attribute)*>"
    "<!ELEMENT channel (scan-element?, attribute*)><!ELEMENT attribute EMPTY><!ELEMENT scan-element EMPTY>"
    "<!ELEMENT debug-attribute EMPTY><!ELEMENT buffer-attribute EMPTY>"
    "<!ATTLIST context name CDATA #REQUIRED description CDATA #IMPLIED>"
    "<!ATTLIST context-attribute name CDATA #REQUIRED value CDATA #REQUIRED>"
    "<!ATTLIST device id CDATA #REQUIRED name CDATA #IMPLIED>"
    "<!ATTLIST channel id CDATA #REQUIRED type (input|output) #REQUIRED name CDATA #IMPLIED>"
    "<!ATTLIST scan-element index CDATA #REQUIRED format CDATA #REQUIRED scale CDATA #IMPLIED>"
    "<!ATTLIST attribute name CDATA #REQUIRED filename CDATA #IMPLIED>"
    "<!ATTLIST debug-attribute name CDATA #REQUIRED><!ATTLIST buffer-attribute name CDATA #REQUIRED>]>"
)


def devices(phy: Phy, register: Callable[[str], Setting]) -> tuple[Device, ...]:
    """The devices; `register` gives the access to the registers of the device of an id."""
    return (
        Device(PHY, "ad9361-phy", _phy_channels(phy), _phy_attributes(phy), _phy_debug(register(PHY))),
        Device(XADC, "xadc", (Channel("temp0", False, _named("in_temp0", raw=constant("2500"), scale=constant("1"))),)),
        Device(
            TX,
            "cf-ad9361-dds-core-lpc",
            (
                *(_samples(f"voltage{at}", at, True, phy.tx_rate) for at in range(2)),
                *(_tone(at, tone, phy) for at, tone in enumerate(phy.tones)),
            ),
            debug=_named("", direct_reg_access=register(TX)),
            buffer=_buffer(),
        ),
        Device(
            RX,
            "cf-ad9361-lpc",
            tuple(_samples(f"voltage{at}", at, False, phy.rx_rate) for at in range(2)),
            debug=_named("", direct_reg_access=register(RX)),
            buffer=_buffer(),
        ),
    )


def context_xml(held: Iterable[Device]) -> str:
    """The description that libiio asks for first."""
    facts = {
        "hw_model": MODEL,
        "hw_serial": "none",
        "fw_version": f"hardpath {code_version()}",
        "ad9361-phy,model": "ad9364",
    }
    about = "".join(f"<context-attribute name={quoteattr(k)} value={quoteattr(v)} />" for k, v in facts.items())
    body = "".join(map(_device_xml, held))
    head = f'<context name="network" description={quoteattr(MODEL)} >'
    return f'<?xml version="1.0" encoding="utf-8"?>{_DTD}{head}{about}{body}</context>'


def _device_xml(device: Device) -> str:
    channels = "".join(map(_channel_xml, device.channels))
    attributes = "".join(
        f"<{kind} name={quoteattr(attribute.name)} />"
        for kind, group in (
            ("attribute", device.attributes),
            ("debug-attribute", device.debug),
            ("buffer-attribute", device.buffer),
        )
        for attribute in group
    )
    return f"<device id={quoteattr(device.id)} name={quoteattr(device.name)} >{channels}{attributes}</device>"


def _channel_xml(channel: Channel) -> str:
    name = f" name={quoteattr(channel.name)}" if channel.name else ""
    scan = f'<scan-element index="{channel.scan[0]}" format={quoteattr(channel.scan[1])} />' if channel.scan else ""
    attributes = "".join(
        f"<attribute name={quoteattr(attribute.name)} filename={quoteattr(attribute.filename)} />"
        for attribute in channel.attributes
    )
    kind = "output" if channel.output else "input"
    return f'<channel id={quoteattr(channel.id)}{name} type="{kind}" >{scan}{attributes}</channel>'


def _named(prefix: str, **settings: Setting) -> tuple[Attribute, ...]:
    """Attributes whose files are named PREFIX_NAME."""
    return tuple(Attribute(name, setting, f"{prefix}_{name}" if prefix else name) for name, setting in settings.items())


def _flag(value: str = "1") -> Choice:
    return Choice(value, ("0", "1"))


def _phy_channels(phy: Phy) -> tuple[Channel, ...]:
    gain, port = phy.rx_gain, "A_BALANCED B_BALANCED C_BALANCED A_N A_P B_N B_P C_N C_P TX_MONITOR1 TX_MONITOR2"
    rates = Measured(lambda: f"[{phy.rate.lowest(phy.fir.enabled):.0f} 1 61440000]")
    received = (
        *_named(
            "in_voltage0",
            hardwaregain=gain,
            hardwaregain_available=constant("[-3 1 71]"),
            gain_control_mode=gain.mode,
            rssi=Measured(lambda: f"{phy.rssi_db:.2f} dB"),
            rf_port_select=Choice("A_BALANCED", tuple(port.split())),
        ),
        *_named(
            "in_voltage",
            gain_control_mode_available=constant(" ".join(gain.mode.choices)),
            rf_port_select_available=constant(port),
            sampling_frequency=phy.rate,
            sampling_frequency_available=rates,
            rf_bandwidth=phy.rx_bandwidth,
            rf_bandwidth_available=constant("[200000 1 56000000]"),
            filter_fir_en=phy.fir_enable,
            quadrature_tracking_en=_flag(),
            rf_dc_offset_tracking_en=_flag(),
            bb_dc_offset_tracking_en=_flag(),
        ),
    )
    sent = (
        *_named(
            "out_voltage0",
            hardwaregain=phy.tx_gain,
            hardwaregain_available=constant("[-89.750000 0.250000 0.000000]"),
            rssi=constant("0.00 dB"),
            rf_port_select=Choice("A", ("A", "B")),
        ),
        *_named(
            "out_voltage",
            rf_port_select_available=constant("A B"),
            sampling_frequency=phy.rate,
            sampling_frequency_available=rates,
            rf_bandwidth=phy.tx_bandwidth,
            rf_bandwidth_available=constant("[200000 1 40000000]"),
            filter_fir_en=phy.fir_enable,
        ),
    )
    return (
        Channel("voltage0", False, received),
        Channel("voltage0", True, sent),
        Channel("altvoltage0", True, _oscillator("out_altvoltage0_RX_LO", phy.rx_lo), "RX_LO"),
        Channel("altvoltage1", True, _oscillator("out_altvoltage1_TX_LO", phy.tx_lo), "TX_LO"),
        Channel("out", False, _named("in_out", voltage_filter_fir_en=phy.fir_enable)),
        Channel("temp0", False, _named("in_temp0", input=constant("25000"))),
    )


def _oscillator(prefix: str, frequency: Number) -> tuple[Attribute, ...]:
    return _named(
        prefix,
        frequency=frequency,
        frequency_available=constant(f"[{frequency.low:.0f} 1 {frequency.high:.0f}]"),
        external=_flag("0"),
        powerdown=_flag("0"),
    )


def _phy_attributes(phy: Phy) -> tuple[Attribute, ...]:
    states, calibrations = (
        "sleep wait alert fdd pinctrl pinctrl_fdd_indep",
        "auto manual tx_quad rf_dc_offs rssi_gain_step",
    )
    return _named(
        "",
        ensm_mode=Choice("fdd", tuple(states.split())),
        ensm_mode_available=constant(states),
        calib_mode=Choice("auto", tuple(calibrations.split())),
        calib_mode_available=constant(calibrations),
        trx_rate_governor=Choice("nominal", ("nominal", "highest_osr")),
        trx_rate_governor_available=constant("nominal highest_osr"),
        filter_fir_config=phy.fir,
        rx_path_rates=Measured(lambda: phy.rate.path("rx")),
        tx_path_rates=Measured(lambda: phy.rate.path("tx")),
        xo_correction=Number(40e6, 39_992_000, 40_008_000),
        xo_correction_available=constant("[39992000 1 40008000]"),
    )


def _phy_debug(register: Setting) -> tuple[Attribute, ...]:
    return _named("", direct_reg_access=register, loopback=Choice("0", ("0",)), initialize=Choice("1", ("1",)))


def _samples(name: str, at: int, output: bool, rate: FpgaRate) -> Channel:
    prefix = "out" if output else "in"
    calibration = {
        "calibscale": Number(1.0, -2.0, 2.0, 1e-6, "{:f}"),
        "calibphase": Number(0.0, -1.0, 1.0, 1e-6, "{:f}"),
    }
    attributes = (
        *_named(f"{prefix}_{name}", **calibration),
        *_named(f"{prefix}_voltage", sampling_frequency=rate, sampling_frequency_available=Measured(rate.available)),
    )
    return Channel(name, output, attributes, scan=(at, TX_FORMAT if output else RX_FORMAT))


def _tone(at: int, tone: Tone, phy: Phy) -> Channel:
    name = f"TX1_{'IIQQ'[at]}_F{at % 2 + 1}"
    attributes = _named(
        f"out_altvoltage{at}_{name}",
        frequency=tone.frequency,
        phase=tone.phase,
        scale=tone.scale,
        raw=tone.raw,
        sampling_frequency=Measured(phy.tx_rate.read),
    )
    return Channel(f"altvoltage{at}", True, attributes, name)


def _buffer() -> tuple[Attribute, ...]:
    return _named(
        "",
        watermark=Number(2048, 1, 1 << 26),
        data_available=constant("0"),
        length_align_bytes=constant("8"),
    )
