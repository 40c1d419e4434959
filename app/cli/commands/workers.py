"""Define `graft workers`."""

from app.cli.options import Json, client, print_json


def workers(as_json: Json = False) -> None:
    """List workers with their devices, and whether they are alive."""
    found = client().get("/v1/workers", limit=200)
    if as_json:
        return print_json(found)
    from app.cli import show

    rows = [
        [
            worker["name"],
            worker["state"],
            ", ".join(device["name"] for device in worker["devices"]),
            ", ".join(_memory(device) for device in worker["devices"]),
            worker["running"],
            worker["heartbeat_at"][:19],
            worker["version"],
            (worker["problem"] or {}).get("reason"),
        ]
        for worker in found["items"]
    ]
    columns = ["name", "state", "device", "free memory", "running", "heartbeat (UTC)", "version", "problem"]
    return show.table(columns, rows)


def _memory(device: dict[str, int | None]) -> str:
    free, total = device["memory_free"], device["memory_total"]
    return "?" if free is None or total is None else f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB"
