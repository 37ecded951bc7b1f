import subprocess
import sys

HEAVY = (
    "torch",
    "ray",
    "mlflow",
    "sqlalchemy",
    "fastapi",
    "helios_jobs",
    "helios_model",
    "rich",
    "typer",
    "jsonschema",
)


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_spec_imports_nothing_heavy() -> None:
    """pydantic and PyYAML, no engine, no workload, no terminal."""
    code = f"import sys, helios.spec; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(code) == "[]"


def test_importing_spec_is_quick() -> None:
    """The documents' models cost no more processor time than a third above pydantic itself, the best of five.

    In ratio, within one process: seconds double where other work shares the machine.
    """
    code = """\
import time; start = time.process_time()
import pydantic
class Warm(pydantic.BaseModel): x: int
before = time.process_time(); import helios.spec; print((time.process_time() - before) / (before - start))"""
    assert min(float(run(code)) for _ in range(5)) < 4 / 3


def test_validating_imports_no_engine(repository: object) -> None:
    """Checking the curriculum's configs loads the workload's config model, and neither torch nor Ray."""
    code = f"""\
import sys; from helios.spec import load_documents
assert load_documents(["{repository}/jobs"]); print([name for name in ("torch", "ray") if name in sys.modules])"""
    assert run(code) == "[]"
