"""`portrt cache`: lists, checks and prunes the engine cache."""

from __future__ import annotations

import json
import time

import click

from portrt.cache.entry import Entry
from portrt.cache.location import ENV_DIR, cache_folder, cache_limit_bytes
from portrt.cache.store import Cache
from portrt.cli.tables import print_table, size_text
from portrt.errors import SettingsError

_AGES = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (0.0, "s"))


@click.group()
def command() -> None:
    """List, check or prune the engine cache, or print where it is."""


def _cache() -> Cache:
    folder = cache_folder()
    if folder is None:
        raise SettingsError(
            f"the cache is switched off by {ENV_DIR}",
            "a folder",
            f"unset {ENV_DIR}, or set it to the folder to look at",
        )
    return Cache(folder, cache_limit_bytes())


@command.command("where")
def where() -> None:
    """Print the folder of the cache."""
    click.echo(cache_folder() or "off")


@command.command("list")
@click.option("--parts", is_flag=True, help="Also print the parts of every key.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_entries(parts: bool, as_json: bool) -> None:
    """List the entries, most recently used first."""
    cache = _cache()
    entries = cache.entries()
    if as_json:
        click.echo(json.dumps([_to_json(entry) for entry in entries], indent=2))
        return
    total = sum(entry.size for entry in entries)
    click.echo(
        f"{cache.folder}: {len(entries)} entries, {size_text(total)} of "
        f"{size_text(cache.limit_bytes)}"
    )
    if entries:
        print_table(
            ["entry", "built by", "model", "block", "size", "last used"],
            [_row(entry) for entry in entries],
        )
    for entry in entries if parts else ():
        click.echo(f"\n{entry.name}")
        for name, digest in entry.parts.items():
            click.echo(f"  {name:40} {digest[:16]}")


def _row(entry: Entry) -> list[str]:
    meta, build = entry.meta, entry.meta.get("build", {})
    by = meta.get("backend") or ", ".join(meta.get("backends", []))
    version = f" {build['version']}" if "version" in build else ""
    short = f"{entry.kind}-{entry.name.rpartition('-')[2][:12]}"
    model = str(meta.get("model") or "-").rpartition(".")[2]
    block = meta.get("block", "-")
    return [short, f"{by}{version}", model, block, size_text(entry.size), _age(entry)]


def _age(entry: Entry) -> str:
    seconds = max(time.time() - entry.used, 0.0)
    unit, name = next(pair for pair in _AGES if seconds >= pair[0])
    return f"{seconds / unit if unit else seconds:.0f} {name} ago"


def _to_json(entry: Entry) -> dict[str, object]:
    return {
        "name": entry.name,
        "kind": entry.kind,
        "bytes": entry.size,
        "used": entry.used,
        "sha256": entry.sha256,
        "parts": dict(entry.parts),
        "meta": dict(entry.meta),
    }


@command.command("check")
@click.pass_context
def check(ctx: click.Context) -> None:
    """Check the digest of every entry, and remove damaged ones. Exit code 1 if one was damaged."""
    found = _cache().check()
    bad = [(name, wrong) for name, wrong in found if wrong]
    for name, wrong in bad:
        click.echo(f"removed {name}: {wrong}")
    click.echo(f"{len(found) - len(bad)} of {len(found)} entries are whole")
    if bad:
        ctx.exit(1)


@command.command("prune")
@click.option("--max-bytes", type=click.IntRange(min=1), help="Size to keep; default: the limit.")
@click.option("--all", "everything", is_flag=True, help="Remove every entry.")
def prune(max_bytes: int | None, everything: bool) -> None:
    """Remove the least recently used entries, or all."""
    if everything and max_bytes is not None:
        raise SettingsError(
            "--all was given together with --max-bytes", "one of them", "leave one of them out"
        )
    cache = _cache()
    removed = cache.clear() if everything else cache.evict(max_bytes or cache.limit_bytes)
    left = cache.entries()
    click.echo(
        f"removed {len(removed)} entries; {len(left)} are left, "
        f"{size_text(sum(entry.size for entry in left))}"
    )
