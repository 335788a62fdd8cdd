import os

import pytest

from serve.config.machine import machine

GIB = 2**30
V2 = "42 41 0:30 {below} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "33 31 0:29 {below} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "34 31 0:32 {below} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A machine of 16 cores and 64 GiB, with files as the kernel would have them."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 16 * 2**20}.__getitem__)

    def write(cgroup, mountinfo, **files):
        for name, text in {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def test_without_cgroups_affinity_and_memory_count(root):
    assert machine(root("", "")) == (16.0, 64 * GIB)


def test_a_quota_of_version_2_is_cores_and_threads_are_whole_ones(root):
    found = machine(
        root(
            "0::/\n",
            V2.format(below="/"),
            **{"sys/fs/cgroup/cpu.max": "250000 100000\n", "sys/fs/cgroup/memory.max": f"{2 * GIB}\n"},
        )
    )
    assert found == (2.5, 2 * GIB)
    assert found.threads == 2


@pytest.mark.parametrize(("quota", "cores", "threads"), [("max 100000", 16.0, 16), ("50000 100000", 0.5, 1)])
def test_no_quota_is_all_cores_and_less_than_a_core_is_one_thread(root, quota, cores, threads):
    found = machine(root("0::/\n", V2.format(below="/"), **{"sys/fs/cgroup/cpu.max": quota}))
    assert (found.cores, found.threads) == (cores, threads)


def test_the_tightest_level_above_the_process_counts(root):
    files = {
        "sys/fs/cgroup/pods/cpu.max": "400000 100000\n",
        "sys/fs/cgroup/pods/memory.max": f"{GIB}\n",
        "sys/fs/cgroup/pods/one/cpu.max": "max 100000\n",
        "sys/fs/cgroup/pods/one/memory.max": f"{3 * GIB}\n",
        "sys/fs/cgroup/pods/other/cpu.max": "100000 100000\n",
    }
    assert machine(root("0::/pods/one\n", V2.format(below="/"), **files)) == (4.0, GIB)


def test_a_quota_and_a_limit_of_version_1_count(root):
    files = {
        "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "300000\n",
        "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/box/memory.limit_in_bytes": f"{5 * GIB}\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    lines = "5:cpu,cpuacct:/box\n4:memory:/box\n1:name=systemd:/elsewhere\n0::/elsewhere\n"
    assert machine(root(lines, V1.format(below="/"), **files)) == (3.0, 5 * GIB)


def test_inside_a_container_the_mount_shows_its_own_part_of_the_hierarchy(root):
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/inner/memory.limit_in_bytes": f"{GIB}\n",
    }
    lines = "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc/inner\n"
    assert machine(root(lines, V1.format(below="/docker/abc"), **files)) == (2.0, GIB)


def test_a_path_that_the_mount_does_not_show_is_taken_for_its_top(root):
    files = {"sys/fs/cgroup/cpu.max": "100000 100000", "sys/outside/cpu.max": "50000 100000"}
    found = machine(root("0::/../outside\n", V2.format(below="/docker/abc"), **files))
    assert found.cores == 1.0


def test_both_versions_beside_each_other_count(root):
    lines = "5:cpu,cpuacct:/\n0::/\n"
    mounts = V1.format(below="/") + V2.format(below="/").replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "600000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/unified/memory.max": f"{GIB}\n",
    }
    assert machine(root(lines, mounts, **files)) == (6.0, GIB)


def test_affinity_below_the_quota_counts(root, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    found = machine(root("0::/\n", V2.format(below="/"), **{"sys/fs/cgroup/cpu.max": "800000 100000"}))
    assert (found.cores, found.threads) == (2.0, 2)


def test_a_folder_with_a_space_in_its_name_is_found(root):
    mounts = "42 41 0:30 / /sys/fs/c\\040group rw - cgroup2 cgroup2 rw\n"
    assert machine(root("0::/\n", mounts, **{"sys/fs/c group/cpu.max": "100000 100000"})).cores == 1.0


def test_files_that_make_no_sense_limit_nothing(root):
    files = {"sys/fs/cgroup/cpu.max": "lots\n", "sys/fs/cgroup/memory.max": "-5\n"}
    assert machine(root("0::/\n", V2.format(below="/"), **files)) == (16.0, 64 * GIB)


def test_this_machine_has_a_core_and_memory():
    found = machine()
    assert 0 < found.cores <= (os.cpu_count() or 1)
    assert found.threads >= 1
    assert found.memory_bytes > 0
