# What every supervisor knows: how to say something, and how to find and end all that a command started.
rs=$(printf '\036')
say() { printf '%s%s %s%s' "$rs" "$nonce" "$1" "$rs" >&4; }
session=$(command -v setsid)

# The tag is a limit that nothing enforces, and that every descendant inherits whatever it does to its environment or
# session; what keeps its environment is known by that, too. Zombies do not count: without an init they stay.
tagged() {
  while read -r a b c limit _; do
    case "$a $b $c" in "Max file locks") [ "$limit" = "$tag" ]; return ;; esac
  done <"$1"
  return 1
}
candidates() {
  if command -v grep >/dev/null; then
    grep -l "^Max file locks  *$tag " /proc/[0-9]*/limits
    grep -l "ANYSPAWN_ID=$id" /proc/[0-9]*/environ
  else
    for file in /proc/[0-9]*/limits; do
      if tagged "$file"; then echo "$file"; fi
    done
  fi
}
left() {
  for file in $(candidates); do
    process=${file%/*}
    IFS= read -r state <"$process/stat" || continue
    case ${state##*) } in [ZX]*) ;; *) printf '%s ' "${process#/proc/}" ;; esac
  done
}
# Whether looking finds what there is to find: a process that was tagged for that.
probe() (
  { ulimit -x "$tag" || ulimit -w "$tag"; } >/dev/null
  left
)
sweep() {
  round=0
  while pids=$(left) && [ -n "$pids" ]; do
    [ "$round" -lt 300 ] || return 1
    kill -9 $pids
    round=$((round + 1))
  done
}
held() {
  out=$(readlink /proc/$$/fd/1) err=$(readlink /proc/$$/fd/4)
  for pid in $(left); do
    for fd in /proc/"$pid"/fd/*; do
      case $(readlink "$fd") in "$out" | "$err") return 0 ;; esac
    done
  done
  return 1
}

spool() {
  exec 3<&-
  if dd iflag=fullblock count=0 </dev/null; then dd bs="$((size + 16))" iflag=fullblock; else cat || cat >/dev/null; fi || lost "$?"
}
lost() {
  case $1 in 126 | 127 | 137) say lost ;; esac
}
