#!/bin/sh
# Ingest examples/docs and ask questions about it: the three below, or those given as arguments.
#
#   make demo
#   KB_HOME=.demo PATH=".venv/bin:$PATH" sh examples/demo.sh "How heavy is the freeze dryer?"
set -eu
cd "$(dirname "$0")/.."

if [ "$#" -eq 0 ]; then
  set -- \
    "出差去上海，住宿费每晚最多报销多少？" \
    "How often does the pump oil have to be changed?" \
    "公司去年的营业收入是多少？"
fi

printf '$ kb ingest examples/docs --kb demo\n'
kb ingest examples/docs --kb demo

for question in "$@"; do
  printf '\n$ kb ask "%s" --kb demo\n' "$question"
  kb ask "$question" --kb demo
done
