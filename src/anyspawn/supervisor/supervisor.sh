# Looks after one command inside a container. Its stdin is a header line, a line for each variable, the command's stdin,
# and then nothing: when it ends, whoever called is gone, or wants the end, and the whole tree is killed.
# What it has to say stands in frames on stderr, and two on stdout, which the caller takes out again. It is given nothing
# before it says that it is ready: what else might read its stdin, such as a client that asks for a password, gets none.
printf '\036anyspawn ready\n' >&2
read -r nonce id tag count size || exit 125
rs=$(printf '\036')
exec 3<&0 4>&2 2>/dev/null
say() { printf '%s%s %s%s' "$rs" "$nonce" "$1" "$rs" >&4; }
i=0
while [ "$i" -lt "$count" ]; do
  IFS= read -r line || exit 125
  i=$((i + 1))
  eval "ANYSPAWN_ENV_$i=\$line"
  export "ANYSPAWN_ENV_$i"
done

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

# stdin goes through the memory of dd where a pipe would not hold it all, so that a command that does not read it cannot
# keep the end of our own stdin from being seen. The first line is the number of this process, which waits for that end
# by a builtin, so that killing it orphans nothing.
feed() {
  read -r feeder _ </proc/self/stat
  echo "$feeder"
  if [ "$size" -gt 0 ]; then head -c "$size" <&3 || lost "$?"; fi
  exec >/dev/null 4>&-
  while read -r _ <&3; do :; done
  sweep
}
spool() {
  exec 3<&-
  if dd iflag=fullblock count=0 </dev/null; then dd bs="$((size + 16))" iflag=fullblock; else cat; fi || lost "$?"
}
lost() {
  case $1 in 126 | 127 | 137) say lost ;; esac
}
start='
ANYSPAWN_n="
"
ANYSPAWN_frame=$(printf "\036")$ANYSPAWN_NONCE
ANYSPAWN_i=0
while [ "$ANYSPAWN_i" -lt "$ANYSPAWN_COUNT" ]; do
  ANYSPAWN_i=$((ANYSPAWN_i + 1))
  eval "ANYSPAWN_line=\$ANYSPAWN_ENV_$ANYSPAWN_i"
  unset "ANYSPAWN_ENV_$ANYSPAWN_i"
  eval "$ANYSPAWN_line"
done
unset ANYSPAWN_COUNT ANYSPAWN_NONCE
printf "%s start\036" "$ANYSPAWN_frame"
printf "%s start\036" "$ANYSPAWN_frame" >&2
trap "printf \"%s unstarted \$?\\036\" \"\$ANYSPAWN_frame\" >&2" EXIT
exec "$@"'
work() (
  exec 2>&4 3<&- 4>&-
  { ulimit -x "$tag" || ulimit -w "$tag"; } 2>/dev/null
  tagged /proc/self/limits || printf '%s%s untagged%s' "$rs" "$nonce" "$rs" >&2
  ANYSPAWN_ID=$id ANYSPAWN_COUNT=$count ANYSPAWN_NONCE=$nonce
  export ANYSPAWN_ID ANYSPAWN_COUNT ANYSPAWN_NONCE
  exec $session sh -c "$start" anyspawn "$@"
)
look_after() {
  read -r feeder
  work "$@"
  status=$?
  say "exit $status"
  while held && kill -0 "$feeder"; do
    sleep 0.02 || sleep 1 || while read -r _ <&3; do :; done
  done
  sweep
  swept=$?
  printf '%s%s end%s' "$rs" "$nonce" "$rs"
  if [ "$swept" = 0 ] && [ -n "$(probe)" ]; then say clean; fi
  kill -9 "$feeder"
}
session=$(command -v setsid)
if [ "$size" -gt 65000 ]; then feed | spool | look_after "$@"; else feed | look_after "$@"; fi
exit 0
