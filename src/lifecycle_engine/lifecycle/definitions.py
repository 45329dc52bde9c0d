"""A lifecycle definition: versioned data, checked when it is loaded and compiled into tables that the fold looks up.

`compile_definition` takes the plain data of a document (already read from YAML or JSON) and either returns a
`Definition`, in which nothing is left to go wrong but a guard's own values, or raises `DefinitionError` with every
problem it found, each with the JSON pointer of its place.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from lifecycle_engine.lifecycle.durations import parse_duration
from lifecycle_engine.lifecycle.guards import Guard, GuardCompiler, GuardError, GuardLanguage, ValueType
from lifecycle_engine.lifecycle.measures import Measure, MeasureKind

MAX_STAGES = 100
MAX_RULES = 500
MAX_MEASURES = 100
MAX_EXPRESSIONS = 32
MAX_PROBLEMS = 50
MAX_HINTS = 20

_KEY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_PATH_PART = re.compile(r"[^.\s]{1,64}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{1,8})*")

_EVENT_NAMES = {
    "event.id": ValueType.STRING,
    "event.source": ValueType.STRING,
    "event.type": ValueType.STRING,
    "event.occurred_at": ValueType.TIMESTAMP,
    "event.properties": ValueType.OBJECT,
    "event.context": ValueType.OBJECT,
}
_JOURNEY_NAMES = {
    "journey.stage": ValueType.STRING,
    "journey.entered_at": ValueType.TIMESTAMP,
    "journey.visits": ValueType.COUNTS,
}
_TRAITS = {"traits": ValueType.OBJECT}
BEGINNING = -(1 << 62)
"""Before every instant: since when the first version of a lifecycle holds."""


class Problem(NamedTuple):
    """One mistake: the JSON pointer of its place, what is wrong, and what may have been meant."""

    pointer: str
    message: str
    hint: str | None = None


class DefinitionError(ValueError):
    """A document that is no lifecycle definition; `problems` has every mistake found, at most 50."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(f"{first.pointer or '/'}: {first.message}")


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage; its place in the definition is its rank. `requires` are the guards at its entrance."""

    key: str
    rank: int
    labels: Mapping[str, str]
    requires: tuple[Guard, ...]


@dataclass(frozen=True, slots=True)
class Timer:
    """What makes a rule a timer: how long its clock runs, what starts it anew, and when it is announced.

    Durations are in microseconds. `without` None: no touchpoint starts it anew; empty: every one does.
    """

    after: int
    without: frozenset[str] | None
    warn: int | None

    def is_reset_by(self, type_: str) -> bool:
        return self.without is not None and (not self.without or type_ in self.without)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. With `types` it is judged at touchpoints of these, with a `timer` when its clock runs out.

    With neither it is a condition, judged at every touchpoint, and with the other conditions where there is none.
    `origins` None means from any stage.
    """

    index: int
    types: frozenset[str] | None
    origins: frozenset[str] | None
    when: tuple[Guard, ...]
    to: str
    reenter: bool
    timer: Timer | None = None

    @property
    def is_condition(self) -> bool:
        return self.types is None and self.timer is None

    def is_from(self, stage: str) -> bool:
        return self.origins is None or stage in self.origins


class _Concerned(NamedTuple):
    rules: tuple[Rule, ...]
    measures: tuple[tuple[int, Measure], ...]
    resets: frozenset[int]


@dataclass(frozen=True, slots=True)
class Definition:
    """One compiled version. `moves` None allows every move; `rename` leads from stages of older versions to its own.

    `names` and `asked_measures` are what its guards can ask for, beside nothing else. `timers` are the rules with a
    timer; clocks are kept in their order. `windows` are the measures with `within`, `watched` those of them that a
    condition names, by their places among the measures; `watching` are the stages in which a condition can decide.
    `is_retired` tells that nobody judges by it any more (`retired`).
    """

    key: str
    initial: str
    opens: frozenset[str] | None
    subject_path: tuple[str, ...] | None
    stages: Mapping[str, Stage]
    measures: tuple[Measure, ...]
    rules: tuple[Rule, ...]
    moves: Mapping[str, frozenset[str]] | None
    rename: Mapping[str, str]
    compiler: GuardCompiler
    names: tuple[str, ...]
    asked_measures: tuple[tuple[int, Measure], ...]
    labels: Mapping[str, str]
    timers: tuple[tuple[Rule, Timer], ...]
    conditions: tuple[Rule, ...]
    windows: tuple[tuple[int, Measure], ...]
    watched: tuple[tuple[int, Measure], ...]
    watching: frozenset[str]
    _by_type: Mapping[str, _Concerned] = field(repr=False, compare=False)
    is_retired: bool = False

    def concerned(self, type_: str) -> _Concerned:
        """The rules that a touchpoint of this type can match, the measures that take it in, both in their order.

        `resets` are the clocks, by their place among `timers`, that it starts anew.
        """
        return self._by_type.get(type_) or self._by_type[""]

    def allows(self, origin: str, target: str) -> bool:
        return self.moves is None or target in self.moves.get(origin, ())

    def skipped(self, origin: str, target: str) -> tuple[str, ...]:
        """The stages ranked strictly between the two, upwards; empty for any other direction."""
        low, high = self.stages[origin].rank, self.stages[target].rank
        return tuple(key for key, stage in self.stages.items() if low < stage.rank < high)

    def named_here(self, stage: str) -> str:
        """The name in this version of a stage of the version before it."""
        return stage if stage in self.stages else self.rename.get(stage, self.initial)


def retired(definition: Definition) -> Definition:
    """What stands in a timeline from when on a lifecycle is retired: the stages and measures of its last version.

    It opens no journey, takes nothing in, and has no rule to judge by, so that whatever was there stays as it is.
    """
    return replace(
        definition,
        opens=frozenset(),
        rules=(),
        conditions=(),
        windows=(),
        watched=(),
        watching=frozenset(),
        _by_type={"": _Concerned((), (), frozenset())},
        is_retired=True,
    )


class ActiveDefinition(NamedTuple):
    """A version of a lifecycle as the fold uses it, in force from `since` on (microseconds since the epoch, UTC)."""

    version: int
    definition: Definition
    since: int = BEGINNING


Timeline = tuple[ActiveDefinition, ...]
"""The versions of one lifecycle in the order in which they take effect; the first one does from the beginning."""


def compile_definition(document: Any, language: GuardLanguage) -> Definition:
    """Checks and compiles the plain data of a definition document.

    Raises DefinitionError with every problem found.
    """
    return Compilation(document, language).definition()


class Compilation:
    """One pass over a document; collects problems instead of stopping at the first."""

    def __init__(self, document: Any, language: GuardLanguage) -> None:
        self.problems: list[Problem] = []
        self.ranks: Mapping[str, int] = {}
        self.names: Mapping[str, ValueType] = {}
        self.compiled: dict[str, list[tuple[str, Guard]]] = {}
        """The guards of each list, with their places, whatever else is wrong."""
        self.document = document
        self.language = language

    def definition(self) -> Definition:
        document = self.mapping(self.document, "")
        self.known(
            document,
            "",
            ("lifecycle", "label", "initial", "opens", "per", "stages", "measures", "rules", "moves", "rename"),
            required=("lifecycle", "initial", "stages"),
        )
        key = self.matching(document.get("lifecycle", ""), "/lifecycle", _KEY, "lower-case letters, digits, - and _")
        raw_stages = self.sequence(document.get("stages", []), "/stages", MAX_STAGES)
        ranks = self.ranks = self.stage_keys(raw_stages)
        if document.get("stages") == []:
            self.problem("/stages", "a lifecycle has at least one stage")
        initial = self.stage(document.get("initial", ""), "/initial", ranks) if "initial" in document else ""
        opens = self.types(document["opens"], "/opens") if "opens" in document else None
        subject_path = self.path(document["per"], "/per", ("properties", "context")) if "per" in document else None
        measures = tuple(self.measures(self.mapping(document.get("measures", {}), "/measures")))
        names = {**_EVENT_NAMES, **_JOURNEY_NAMES, **_TRAITS}
        names.update((f"measures.{measure.name}", measure.value_type) for measure in measures)
        self.names = names
        compiler = self.language.compiler(names)
        stages: dict[str, Stage] = {}
        for index, raw in enumerate(raw_stages):
            if isinstance(raw, dict) and (stage_key := str(raw.get("key"))) in ranks and stage_key not in stages:
                stages[stage_key] = self.compiled_stage(raw, f"/stages/{index}", stage_key, len(stages), compiler)
        raw_rules = self.sequence(document.get("rules", []), "/rules", MAX_RULES)
        rules = tuple(self.rule(raw, index, ranks, compiler) for index, raw in enumerate(raw_rules))
        moves = self.moves(document.get("moves", "any"), ranks)
        rename = self.rename(self.mapping(document.get("rename", {}), "/rename"), ranks)
        labels = self.labels(document.get("label", {}), "/label")
        if self.problems:
            raise DefinitionError(self.problems)
        guards = [guard for rule in rules for guard in rule.when]
        guards += [guard for stage in stages.values() for guard in stage.requires]
        timers = tuple((rule, rule.timer) for rule in rules if rule.timer is not None)
        conditions = tuple(rule for rule in rules if rule.is_condition)
        named = [rule.types for rule in rules] + [measure.types for measure in measures]
        named += [timer.without for _, timer in timers]
        types = frozenset[str]().union(*(types for types in named if types))
        by_type = {type_: _concerned(type_, rules, conditions, measures, timers) for type_ in (*types, "")}
        asked = {name for guard in guards for name in mentioned(guard.source, names)}
        watched = {name for rule in conditions for guard in rule.when for name in mentioned(guard.source, names)}
        windows = tuple((n, measure) for n, measure in enumerate(measures) if measure.within is not None)
        return Definition(
            key,
            initial,
            opens,
            subject_path,
            stages,
            measures,
            rules,
            moves,
            rename,
            compiler,
            tuple(name for name in names if name in asked and not name.startswith("measures.")),
            tuple((n, measure) for n, measure in enumerate(measures) if f"measures.{measure.name}" in asked),
            labels,
            timers,
            conditions,
            windows,
            tuple((n, measure) for n, measure in windows if f"measures.{measure.name}" in watched),
            frozenset(stage for stage in stages if any(rule.is_from(stage) for rule in conditions)),
            by_type,
        )

    # -- the parts of a document ---------------------------------------------------------------------------------

    def stage_keys(self, stages: Sequence[Any]) -> dict[str, int]:
        ranks: dict[str, int] = {}
        for index, raw in enumerate(stages):
            pointer = f"/stages/{index}"
            stage = self.mapping(raw, pointer)
            self.known(stage, pointer, ("key", "label", "requires"), required=("key",))
            if "key" not in stage:
                continue
            key = self.matching(stage["key"], f"{pointer}/key", _NAME, "a letter, then letters, digits and _")
            if key in ranks:
                self.problem(f"{pointer}/key", f"the stage {key!r} is there already")
            elif key:
                ranks[key] = len(ranks)
        return ranks

    def compiled_stage(self, raw: Any, pointer: str, key: str, rank: int, compiler: GuardCompiler) -> Stage:
        labels = self.labels(raw.get("label", {}), f"{pointer}/label")
        return Stage(key, rank, labels, self.guards(raw.get("requires", []), f"{pointer}/requires", compiler))

    def measures(self, raw_measures: Mapping[str, Any]) -> Iterable[Measure]:
        if len(raw_measures) > MAX_MEASURES:
            self.problem("/measures", f"a lifecycle has at most {MAX_MEASURES} measures")
            return
        kinds = tuple(kind.value for kind in MeasureKind)
        for name, raw in raw_measures.items():
            pointer = f"/measures/{escaped(str(name))}"
            if not self.matching(name, pointer, _NAME, "a letter, then letters, digits and _"):
                continue
            measure = self.mapping(raw, pointer)
            within = self.duration(measure["within"], f"{pointer}/within") if "within" in measure else None
            self.known(measure, pointer, (*kinds, "of", "within"))
            named = [kind for kind in kinds if kind in measure]
            if len(named) != 1:
                self.problem(pointer, f"a measure has exactly one of {', '.join(kinds)}")
                continue
            kind = MeasureKind(named[0])
            where = f"{pointer}/{kind.value}"
            if kind is MeasureKind.COUNT:
                if "of" in measure:
                    self.problem(f"{pointer}/of", "a count names its touchpoint types itself: count: purchase")
                types = None if measure["count"] == "any" else self.types(measure["count"], where)
                yield Measure(str(name), kind, (), types, within)
                continue
            roots = ("properties", "context") if kind is MeasureKind.SUM else ("properties", "context", "occurred_at")
            path = self.path(measure[kind.value], where, roots)
            types = None if measure.get("of", "any") == "any" else self.types(measure["of"], f"{pointer}/of")
            yield Measure(str(name), kind, path, types, within)

    def rule(self, raw: Any, index: int, ranks: Mapping[str, int], compiler: GuardCompiler) -> Rule:
        pointer = f"/rules/{index}"
        rule = self.mapping(raw, pointer)
        forms = {"on", "after"} & rule.keys()
        if len(forms) > 1:
            self.problem(f"{pointer}/after", "a rule is judged at touchpoints (`on`) or by a clock (`after`), not both")
        elif not forms and "when" not in rule:
            self.problem(pointer, "a rule has `on` (touchpoint types), `after` (a timer), or at least `when`")
        self.known(rule, pointer, ("on", "after", "without", "warn", "from", "when", "to", "reenter"), required=("to",))
        on = self.types(rule["on"], f"{pointer}/on") if "on" in rule else None
        timer = self.timer(rule, pointer)
        origins = None
        if "from" in rule:
            origins = self.origins(rule["from"], f"{pointer}/from", ranks)
        when = self.guards(rule.get("when", []), f"{pointer}/when", compiler)
        if timer is not None:
            for place, guard in enumerate(when):
                if any(mentioned(guard.source, _EVENT_NAMES)):
                    self.problem(f"{pointer}/when/{place}", "a timer fires at no touchpoint, so there is no `event`")
        to = self.stage(rule["to"], f"{pointer}/to", ranks) if "to" in rule else ""
        reenter = rule.get("reenter", False)
        if not isinstance(reenter, bool):
            self.problem(f"{pointer}/reenter", "must be true or false")
        return Rule(index, on, origins, when, to, reenter is True, timer)

    def timer(self, rule: Mapping[str, Any], pointer: str) -> Timer | None:
        if "after" not in rule:
            for name in ("without", "warn"):
                if name in rule:
                    self.problem(f"{pointer}/{name}", f"`{name}` belongs to a timer, and there is no `after`")
            return None
        after = self.duration(rule["after"], f"{pointer}/after")
        without: frozenset[str] | None = None
        if "without" in rule:
            without = frozenset() if rule["without"] == "any" else self.types(rule["without"], f"{pointer}/without")
        warn = self.duration(rule["warn"], f"{pointer}/warn") if "warn" in rule else None
        if warn is not None and after and warn > after:
            self.problem(f"{pointer}/warn", "is longer than the timer itself")
        return Timer(after, without, warn)

    def duration(self, raw: Any, pointer: str) -> int:
        try:
            return parse_duration(raw)
        except ValueError as error:
            self.problem(pointer, str(error))
            return 0

    def rename(self, raw: Mapping[str, Any], ranks: Mapping[str, int]) -> Mapping[str, str]:
        for old, new in raw.items():
            pointer = f"/rename/{escaped(str(old))}"
            if old in ranks:
                self.problem(pointer, f"{old!r} is a stage of this version; only stages that it lacks are renamed")
            self.stage(new, pointer, ranks)
        return {str(old): str(new) for old, new in raw.items()}

    def origins(self, raw: Any, pointer: str, ranks: Mapping[str, int]) -> frozenset[str]:
        if not isinstance(raw, list):
            return frozenset((self.stage(raw, pointer, ranks),))
        if not raw:
            self.problem(pointer, "an empty list: the rule could never match")
        listed = self.sequence(raw, pointer, MAX_STAGES)
        return frozenset(self.stage(key, f"{pointer}/{i}", ranks) for i, key in enumerate(listed))

    def moves(self, raw: Any, ranks: Mapping[str, int]) -> Mapping[str, frozenset[str]] | None:
        if raw == "any":
            return None
        if not isinstance(raw, dict):
            self.problem("/moves", "must be `any`, or a map from a stage to the stages it may go to")
            return None
        moves = {}
        for origin, targets in raw.items():
            pointer = f"/moves/{escaped(str(origin))}"
            self.stage(origin, pointer, ranks)
            listed = self.sequence(targets, pointer, MAX_STAGES)
            moves[str(origin)] = frozenset(self.stage(key, f"{pointer}/{i}", ranks) for i, key in enumerate(listed))
        return moves

    def guards(self, raw: Any, pointer: str, compiler: GuardCompiler) -> tuple[Guard, ...]:
        guards = []
        for index, source in enumerate(self.sequence(raw, pointer, MAX_EXPRESSIONS)):
            place = f"{pointer}/{index}"
            if not isinstance(source, str):
                self.problem(place, "an expression is text", f"put it in quotes: {str(source)[:80]!r}")
                continue
            try:
                guards.append(compiler.compile(source))
            except GuardError as error:
                hint = error.hint if error.unknown is None else self.name_meant(error.unknown, error.known, source)
                self.problem(place, str(error), hint)
            else:
                self.compiled.setdefault(pointer, []).append((place, guards[-1]))
        return tuple(guards)

    def labels(self, raw: Any, pointer: str) -> Mapping[str, str]:
        labels = self.mapping(raw, pointer)
        for language, label in labels.items():
            place = f"{pointer}/{escaped(str(language))}"
            self.matching(language, place, _LANGUAGE, "a language tag such as en or pt-BR")
            if not isinstance(label, str) or not 0 < len(label) <= 200:
                self.problem(place, "a label is a text of 1 to 200 characters")
        return labels

    # -- the pieces that parts are made of -----------------------------------------------------------------------

    def problem(self, pointer: str, message: str, hint: str | None = None) -> None:
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(pointer, message, hint))

    def meant(self, word: str, choices: Sequence[str]) -> str | None:
        # Looking for what was meant takes longer than everything else here.
        return closest(word, choices) if len(self.problems) < MAX_HINTS else None

    def name_meant(self, unknown: str, known: Sequence[str], source: str) -> str | None:
        """What may have been meant by a name in an expression that is not known there."""
        root, _, rest = unknown.partition(".")
        field = rest.partition(".")[0]
        fields = [name.partition(".")[2] for name in known if name.startswith(f"{root}.")]
        if field and fields:
            hint = self.meant(field, fields)
            if hint is None and root == "event":
                return f"what a touchpoint carries is named event.properties.{field[:64]}"
            return hint
        if fields:
            return f"name a part of it: {root}.{fields[0]} …"
        if field:
            return self.meant(root, sorted({name.partition(".")[0] for name in known}))
        by_field = {name.partition(".")[2] or name: name for name in known}
        close = difflib.get_close_matches(root[:64], by_field, 1) if len(self.problems) < MAX_HINTS else ()
        if close:
            return f"did you mean {by_field[close[0]]!r}?"
        return None if f"{unknown}(" in source else "text stands in quotes"

    def mapping(self, raw: Any, pointer: str) -> Mapping[str, Any]:
        if isinstance(raw, dict):
            return raw
        self.problem(pointer, f"must be a map, not {_kind(raw)}")
        return {}

    def sequence(self, raw: Any, pointer: str, most: int) -> Sequence[Any]:
        if not isinstance(raw, list):
            self.problem(pointer, f"must be a list, not {_kind(raw)}")
            return ()
        if len(raw) > most:
            self.problem(pointer, f"has {len(raw)} items; at most {most} are allowed")
            return ()
        return raw

    def known(
        self, mapping: Mapping[str, Any], pointer: str, names: Sequence[str], required: Sequence[str] = ()
    ) -> None:
        for name in mapping:
            if name not in names:
                self.problem(
                    f"{pointer}/{escaped(str(name))}", f"unknown name {str(name)[:80]!r}", self.meant(str(name), names)
                )
        for name in required:
            if name not in mapping:
                self.problem(pointer, f"{name!r} is missing")

    def matching(self, raw: Any, pointer: str, pattern: re.Pattern[str], form: str) -> str:
        if not isinstance(raw, str) or not pattern.fullmatch(raw):
            self.problem(pointer, f"{str(raw)[:80]!r} is not of the form: {form} (at most 64 characters)")
            return ""
        return raw

    def stage(self, raw: Any, pointer: str, ranks: Mapping[str, int]) -> str:
        if isinstance(raw, str) and raw in ranks:
            return raw
        self.problem(pointer, f"there is no stage {str(raw)[:80]!r}", self.meant(str(raw), list(ranks)))
        return ""

    def types(self, raw: Any, pointer: str) -> frozenset[str]:
        listed = raw if isinstance(raw, list) else [raw]
        if not listed:
            self.problem(pointer, "an empty list: name at least one touchpoint type")
        for index, type_ in enumerate(listed):
            place = f"{pointer}/{index}" if isinstance(raw, list) else pointer
            if not isinstance(type_, str) or not 0 < len(type_) <= 128:
                self.problem(place, f"a touchpoint type is a text of 1 to 128 characters, not {_kind(type_)}")
            elif type_.startswith("$"):
                self.problem(place, "types that begin with $ are reserved and match no rule")
        return frozenset(str(type_) for type_ in listed)

    def path(self, raw: Any, pointer: str, roots: Sequence[str]) -> tuple[str, ...]:
        parts = tuple(raw.split(".")) if isinstance(raw, str) else ()
        leads_in = len(parts) > 1 and all(_PATH_PART.fullmatch(part) for part in parts)
        if not parts or parts[0] not in roots or leads_in == (parts[0] == "occurred_at"):
            forms = ", ".join(root if root == "occurred_at" else f"{root}.NAME" for root in roots)
            self.problem(pointer, f"{str(raw)[:80]!r} leads nowhere; it must be one of {forms}")
        return parts


def closest(word: str, choices: Sequence[str]) -> str | None:
    """A hint at the one of the choices that looks most like the word, if one does."""
    close = difflib.get_close_matches(word[:64], choices, 1)
    return f"did you mean {close[0]!r}?" if close else None


def _concerned(
    type_: str,
    rules: Sequence[Rule],
    conditions: tuple[Rule, ...],
    measures: Sequence[Measure],
    timers: Sequence[tuple[Rule, Timer]],
) -> _Concerned:
    matching = tuple(rule for rule in rules if rule.is_condition or (rule.types is not None and type_ in rule.types))
    return _Concerned(
        # Where it is only them, the very same: what they have just been asked needs not be asked again.
        conditions if len(matching) == len(conditions) else matching,
        tuple((n, measure) for n, measure in enumerate(measures) if measure.types is None or type_ in measure.types),
        frozenset(n for n, (_, timer) in enumerate(timers) if timer.is_reset_by(type_)),
    )


_LITERAL = re.compile(
    r"""[rR][bB]?(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')"""
    r"""|\"{3}(?:[^\\]|\\.)*?\"{3}|'{3}(?:[^\\]|\\.)*?'{3}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|(//[^\n]*)""",
    re.DOTALL,
)


def mentioned(source: str, names: Iterable[str]) -> list[str]:
    """Those of the names that an expression asks for; what stands in texts and comments is not asked."""
    bare = _LITERAL.sub(lambda found: " " if found[1] else '""', source).replace("`", "")
    bare = re.sub(r"(?<!\s)\s*\.\s*", ".", bare)
    return [name for name in names if name in bare and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", bare)]


def escaped(token: str) -> str:
    """A name as a JSON pointer has it; one of more than 80 characters is cut, and the pointer then leads around it."""
    return token[:80].replace("~", "~0").replace("/", "~1")


def _kind(raw: Any) -> str:
    kinds = {dict: "a map", list: "a list", str: "a text", bool: "a truth value", type(None): "empty"}
    return kinds.get(type(raw), "a number" if isinstance(raw, int | float) else f"a {type(raw).__name__}")
