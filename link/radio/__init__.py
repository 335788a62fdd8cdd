"""The link over front ends that send and receive samples: a radio is a channel (`link.radio.channel.RadioChannel`)."""
