#!/bin/sh
# Ingest examples/docs and ask questions about it: the three below, or those given as arguments.
#
#   make demo
#   KB_HOME=.demo PATH=".venv/bin:$PATH" sh examples/demo.sh "How heavy is the freeze dryer?"
set -eu
cd "$(dirname "$0")/.."

if [ "$#" -eq 0 ]; then
  set -- \
    "出差借款最多可以借多少钱？" \
    "How long must the machine stand upright after transport?" \
    "公司去年的营业收入是多少？"
fi

printf '$ kb ingest examples/docs --kb demo\n'
kb ingest examples/docs --kb demo

for question in "$@"; do
  printf '\n$ kb ask "%s" --kb demo\n' "$question"
  kb ask "$question" --kb demo
done
