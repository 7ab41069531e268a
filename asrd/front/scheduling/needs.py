"""The needs of a job, the skills of a worker's model, and whether the one meets the other. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

# As many languages as an error names.
_FEW = 5


@dataclass(frozen=True, slots=True)
class Needs:
    """`model` is a name as the client wrote it, None for any; without `language` it is detected."""

    model: str | None = None
    language: str | None = None
    translate: bool = False
    word_timestamps: bool = False


@dataclass(frozen=True, slots=True)
class Skills:
    """`languages` is None as long as nobody knows; such a worker may turn out to have any skill."""

    languages: frozenset[str] | None = None
    translate: bool = True
    word_timestamps: bool = True

    @property
    def multilingual(self) -> bool:
        return self.languages is not None and len(self.languages) > 1

    def lack(self, needs: Needs) -> str | None:
        """The name of the option that this model can't do; None if it can do all."""
        if self.languages is None:
            return None
        if needs.language is not None and needs.language not in self.languages:
            return "language"
        if needs.translate and not self.translate:
            return "task"
        if needs.word_timestamps and not self.word_timestamps:
            return "word_timestamps"
        return None


UNKNOWN = Skills()


def is_called(model: str, asked: str) -> bool:
    """True if `asked` names this model: by its whole name, or by the last part of a path or a
    repository (`base` for `/srv/models/base`), in upper or lower case."""
    model, asked = model.rstrip("/").casefold(), asked.rstrip("/").casefold()
    return asked in (model, model.rpartition("/")[2])


def why_lacking(all_skills: Sequence[Skills], needs: Needs) -> str:
    """The sentence about an option that none of these can do: what the closest of them lacks."""
    lacks = {skills.lack(needs) for skills in all_skills}
    if "word_timestamps" in lacks:
        return "word_timestamps: no worker's model has alignment_heads"
    if "task" in lacks:
        return "task: no worker's model can translate: English-only models can't"
    known = set().union(*(skills.languages or () for skills in all_skills))
    few = f" (they know {', '.join(sorted(known))})" if len(known) <= _FEW else ""
    return f"language: no worker's model knows {needs.language!r}{few}"
