"""Small files in the form of the public traces, so that the loaders are tested where those are not."""

import lzma
from pathlib import Path

import pytest

from helios.errors import InputError
from helios.simulator.traces import trace_folder

PHILLY = """timestamp,duration,num_gpus,gpu_time,cluster
2017-10-09 07:01:55,66.0,1,66.0,11cb48
2017-10-02 00:00:00,2951.0,8,23608.0,6214e9

2017-09-29 07:58:32,860662.0,1,860662.0,6c71a0
2017-12-10 23:59:59,100.0,12,1200.0,6214e9
2017-12-11 00:00:00,100.0,1,100.0,6214e9
2017-10-09 07:01:55,66.0,1,66.0,11cb48
2017-10-03 10:00:00,500.0,24,12000.0,11cb48
"""
EARTH_HEADER = "time,total_job_num,total_gpu_num,running_gpu_num,pending_gpu_num,idle_gpu_num,gpu_utilization\n"
EARTH = {
    "vcA": ((8, 8, 4, 0), (8, 8, 4, 0), (8, 4, 0, 4), (8, 4, 0, 4)),
    "vcB": ((16, 4, 0, 12), (16, 16, 0, 0), (16, 8, 0, 8), (16, 8, 0, 8)),
}
SIZES = "date,vcA,vcB,vcC,total\n2020-04-30,1,1,1,3\n2020-05-01,8,16,0,24\n2020-05-02,0,0,24,24\n2020-05-03,8,16,0,24\n"
NODES = "sn,cpu_milli,memory_mib,gpu,model\nn0,32000,1024,0,\nn1,64000,2048,8,G2\nn2,64000,2048,2,T4\n"
PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
p0,1000,10,0,0,,BE,Running,0,1,0
p1,2000,20,1,460,T4|T4,LS,Running,0,1,
p2,4000,40,8,1000,,LS,Failed,5,6,5
"""


def compressed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(text.encode()))


def earth_file(rows: tuple[tuple[int, ...], ...]) -> str:
    minutes = (f"2020-05-01 00:0{minute}:00,9,{','.join(map(str, row))},0.5\n" for minute, row in enumerate(rows))
    return EARTH_HEADER + "".join(minutes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of traces with a few rows each."""
    compressed(tmp_path / "philly-2017" / "philly.csv.xz", PHILLY)
    for name, rows in EARTH.items():
        compressed(tmp_path / "helios-earth-vc-2020" / f"{name}.csv.xz", earth_file(rows))
    (tmp_path / "helios-earth-vc-2020" / "Earth_gpu_number.csv").write_text(SIZES)
    compressed(tmp_path / "alibaba-openb-2023" / "openb_node_list_all_node.csv.xz", NODES)
    compressed(tmp_path / "alibaba-openb-2023" / "openb_pod_list_default.csv.xz", PODS)
    spot = tmp_path / "alibaba-spot-gpu-2026"
    spot.mkdir()
    for name, text in SPOT.items():
        (spot / f"{name}.csv").write_text(text)
    return tmp_path


SPOT = {
    "agg_job_type_shares": "type,jobs_share,gpu_seconds_share\nHP,0.9,0.97\nSpot,0.1,0.03\n",
    "agg_worker_count_distribution": "worker_num,jobs\n1,90\n2,10\n",
    "agg_inter_arrival_quantiles": "quantile,seconds\n0.5,16.0\n0.9,86.0\n",
    "agg_duration_quantiles": ",duration_seconds\n0.5,1200.0\n0.9,40000.0\n",
    "agg_bucket_duration": "duration_bucket,jobs,jobs_share\n10 to 60 min,35,0.35\n1 to 10 min,25,0.25\n"
    "1 to 6 hours,14,0.14\n"
    "0 to 1 min,12,0.12\n6 to 24 hours,6,0.06\nover 3 days,6,0.06\n1 to 3 days,2,0.02\n",
    "agg_bucket_gpu_demand": "gpu_demand_bucket,jobs_share\n1,0.6\n2 to 4,0.1\n0,0.1\n5 to 8,0.1\n9 to 16,0.04\n"
    "17 to 32,0.03\n33 to 64,0.01\n129 plus,0.01\n65 to 128,0.01\n",
    "agg_hour_of_day_patterns": "hour_of_day,jobs\n0,9000\n"
    + "".join(f"{hour},{100 + hour}\n" for hour in range(1, 24)),
}


@pytest.fixture
def real_traces() -> Path:
    """The folder of the public traces; the test is skipped where it is not there."""
    try:
        return trace_folder()
    except InputError as error:
        pytest.skip(f"the public traces are not part of the repository: {error.message}")
