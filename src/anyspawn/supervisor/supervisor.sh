# Looks after one command inside a container. Its stdin is a header line, a line for each variable, the command's stdin,
# and then nothing: when it ends, whoever called is gone, or wants the end, and the whole tree is killed.
# What it has to say stands in frames on stderr, and two on stdout, which the caller takes out again. It is given nothing
# before it says that it is ready: what else might read its stdin, such as a client that asks for a password, gets none.
printf '\036anyspawn ready\n' >&2
read -r nonce id tag count size || exit 125
exec 3<&0 4>&2 2>/dev/null
i=0
while [ "$i" -lt "$count" ]; do
  IFS= read -r line || exit 125
  i=$((i + 1))
  eval "ANYSPAWN_ENV_$i=\$line"
  export "ANYSPAWN_ENV_$i"
done

# The stdin of a live program comes in lines, each a format for printf, written by a process beside, so that a program that
# does not read cannot keep the end of our own stdin from being seen. "." lets the shell forget that process, "-" is the end.
stream() {
  trap '' PIPE
  writer=
  while IFS= read -r line <&3; do
    case $line in
      .) wait; writer= ;;
      -) exec >/dev/null ;;
      *) { if printf "$line"; then say took; else say broke; fi; } & writer=$! ;;
    esac
  done
  if [ -n "$writer" ]; then kill -9 "$writer"; wait; fi
}
# Says that a live program has taken the place of the shell that starts it, as its environment shows; where one cannot look,
# that it should have by now.
announce() {
  trap exit TERM
  n=0
  while [ "$n" -lt 50 ]; do
    for file in $(grep -l "ANYSPAWN_ID=$id" /proc/[0-9]*/environ); do
      case $(grep -aho -e "ANYSPAWN_ID=$id" -e "ANYSPAWN_NONCE=$nonce" "$file") in
        *NONCE*) ;; # in one look, as that of a process which ends or is executing something else shows none of them
        *ID*) say running; exit ;;
      esac
    done
    sleep 0.01 || { sleep 1; n=$((n + 20)); }
    n=$((n + 1))
  done
  say running
}

# stdin goes through the memory of dd where a pipe would not hold it all, so that a command that does not read it cannot
# keep the end of our own stdin from being seen. The first line is the number of this process, which waits for that end
# by a builtin, so that killing it orphans nothing.
feed() {
  read -r feeder _ </proc/self/stat
  echo "$feeder"
  if [ "$size" = - ]; then stream; elif [ "$size" -gt 0 ]; then head -c "$size" <&3 || lost "$?"; fi
  exec >/dev/null 4>&-
  while read -r _ <&3; do :; done
  sweep
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
  announcer=
  if [ "$size" = - ]; then announce & announcer=$!; fi
  work "$@"
  status=$?
  if [ -n "$announcer" ]; then exec </dev/null; kill "$announcer"; wait "$announcer"; fi
  say "exit $status"
  told=
  while held && kill -0 "$feeder"; do
    [ "$told" ] || say held
    told=1
    sleep 0.02 || sleep 1 || while read -r _ <&3; do :; done
  done
  sweep
  swept=$?
  printf '%s%s end%s' "$rs" "$nonce" "$rs"
  if [ "$swept" = 0 ] && [ -n "$(probe)" ]; then say clean; fi
  kill -9 "$feeder"
}
if [ "$size" -gt 65000 ]; then feed | spool | look_after "$@"; else feed | look_after "$@"; fi
exit 0
