"""Stands in for gcloud on PATH: one TPU, in a file beside it; what happens to it and its run stands in files that tests write."""

import json
import pathlib
import sys

here = pathlib.Path(__file__).parent
tpu, plan, words = here / "tpu", here / "plan", sys.argv[1:]
with (here / "calls").open("a") as calls:
    calls.write(json.dumps(words) + "\n")


def fail(text: str) -> None:
    sys.exit(f"ERROR: (gcloud.{'.'.join(words[:4])}) {text}")


match words[3]:
    case "describe":
        if not tpu.exists():
            fail("NOT_FOUND: Resource 'projects/p/locations/z/queuedResources/r50' was not found")
        state = tpu.read_text()
        print("no capacity left" if "failedData" in words[-1] else state)
        if state == "WAITING_FOR_RESOURCES":
            tpu.write_text("ACTIVE")
    case "create":
        if (here / "quota").exists():
            fail("RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepodPerProjectPerZoneForTPUAPI' has been exceeded. Limit: 0")
        tpu.write_text((here / "created").read_text() if (here / "created").exists() else "WAITING_FOR_RESOURCES")
    case "delete":
        if (here / "undeletable").exists():
            fail("PERMISSION_DENIED")
        tpu.unlink()
    case "scp":
        assert all(pathlib.Path(file).is_file() for file in words[4:6])
    case "ssh" if "status" in words[-1]:
        now, *rest = plan.read_text().split() or ["idle"]
        plan.write_text(" ".join(rest))
        if now == "preempted":
            tpu.write_text("SUSPENDED")
            fail("the connection was closed")
        if now == "unreachable":
            fail("the connection timed out")
        if now != "silent":
            print("\n".join(f"status: {worker}" for worker in now.split("+")))
    case "ssh" if words[-1].endswith(" stop"):
        plan.write_text("running 130+130 130+130")
