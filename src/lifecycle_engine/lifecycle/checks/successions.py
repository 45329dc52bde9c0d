"""One version of a lifecycle taking over from another while journeys are on their way."""

from __future__ import annotations

from lifecycle_engine.lifecycle.checks.findings import Findings
from lifecycle_engine.lifecycle.definitions import Definition, Problem, escaped


def hindrances(active: Definition, following: Definition) -> tuple[Problem, ...]:
    """What keeps a version from taking over from the active one; places are those of the version that follows."""
    findings = Findings()
    if active.subject_path != following.subject_path:
        was = ".".join(active.subject_path) if active.subject_path else "absent"
        findings.error("/per", f"`per` can't change from version to version; in the active one it is {was}")
    lost = [stage for stage in active.stages if stage not in following.stages and stage not in following.rename]
    if lost:
        hint = f"say where journeys go that are there: rename: {{{lost[0]}: {following.initial}}}"
        findings.error("/rename", f"stages of the active version are missing: {', '.join(lost)}", hint)
    return tuple(findings.errors)


def idle_renames(active: Definition, following: Definition) -> tuple[Problem, ...]:
    """Entries of `rename` for stages that the active version does not have."""
    findings = Findings()
    for stage in following.rename:
        if stage not in active.stages:
            hint = findings.meant(stage, list(active.stages))
            findings.warning(f"/rename/{escaped(stage)}", f"the active version has no stage {stage[:80]!r}", hint)
    return tuple(findings.warnings)
