"""How often a question that needs no history is rewritten: `python -m benchmarks.followups DIR`.

DIR is a folder of question sets. Each question is asked after a random other question of its set
with its first answer. Those that come back changed are printed: some do point back ("Why was this
bill necessary?"), since they were written beside a passage.
"""

import json
import random
import sys
from pathlib import Path

from kb.questions.rewrite import self_contained
from kb.records import Turn


def main(folder: Path) -> None:
    dice = random.Random(0)
    n_questions = n_changed = 0
    for path in sorted(folder.rglob("*questions.jsonl")):
        rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
        changed = []
        for row in rows:
            other = dice.choice(rows)
            answer = str((other.get("answers") or [""])[0])
            turn = Turn(other["question"], answer)
            if (rewritten := self_contained(row["question"], [turn])) != row["question"]:
                changed.append(f"    {row['question']}\n      -> {rewritten}")
        n_questions += len(rows)
        n_changed += len(changed)
        print(
            f"{path.relative_to(folder)}: {len(changed)} of {len(rows)} changed", *changed, sep="\n"
        )
    print(f"all: {n_changed} of {n_questions} changed ({n_changed / max(n_questions, 1):.2%})")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
