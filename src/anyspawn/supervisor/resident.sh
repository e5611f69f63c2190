# Looks after one command after the other inside a container. For each it is told, in a line of its own, the words by which the
# command will be known, and then makes ready all that the command needs but itself. The task follows: how many bytes of
# stdin there are, shell lines that set the variables and the arguments, an empty line, and stdin. While the command runs, a word a line: t, send
# it SIGTERM; k, kill it; x, it has ended. When its own stdin ends the whole tree is killed.
printf '\036anyspawn ready\n' >&2
exec 3<&0 4>&2 2>/dev/null </dev/null

# stdin comes as a printf format where it is short: that takes no other process. Otherwise this one reads the pipe too, so that a
# command which does not is no broken pipe, and what is left of stdin is not taken for words.
feed() {
  trap '' PIPE
  read -r size <&3 || return
  [ "$size" != x ] || exit
  while IFS= read -r line <&3 || return; do
    printf '%s\n' "$line"
    [ -n "$line" ] || break
  done
  case $size in
  0) ;;
  f) IFS= read -r line <&3 && printf "$line" ;;
  *)
    exec 5</proc/self/fd/1
    head -c "$size" <&3 || lost "$?"
    exec 5<&-
    ;;
  esac
  exec >/dev/null
  while read -r word <&3; do
    case $word in
    t) kill -15 $(left) ;;
    k) kill -9 $(left) ;;
    x) exit ;;
    esac
  done
  sweep
}
start='
ANYSPAWN_n="
"
ANYSPAWN_frame=$ANYSPAWN_NONCE
while IFS= read -r ANYSPAWN_line || exit 125; do
  [ -n "$ANYSPAWN_line" ] || break
  eval "$ANYSPAWN_line"
done
unset ANYSPAWN_NONCE ANYSPAWN_line
printf "%s start\036" "$ANYSPAWN_frame"
printf "%s start\036" "$ANYSPAWN_frame" >&2
trap "printf \"%s unstarted \$?\\036\" \"\$ANYSPAWN_frame\" >&2" EXIT
exec "$@"'
work() (
  exec 2>&4 3<&- 4>&-
  { ulimit -x "$tag" || ulimit -w "$tag" || printf '%s%s untagged%s' "$rs" "$nonce" "$rs" >&2; } 2>/dev/null
  ANYSPAWN_ID=$id ANYSPAWN_NONCE=$rs$nonce
  export ANYSPAWN_ID ANYSPAWN_NONCE
  exec $session sh -c "$start" anyspawn
)
# Whether nothing is left of the command, by one look: what it started has higher numbers than what was there before, unless it
# ran for so long that they may have begun anew.
alone() {
  read -r _ _ _ _ last </proc/loadavg || return 1
  read -r now _ </proc/uptime || return 1
  if [ "$((${now%.*}${now#*.} - ${began%.*}${began#*.}))" -gt "$soon" ] || [ "$last" -lt "$first" ]; then first=0; fi
  set --
  for process in /proc/[0-9]*; do
    [ "${process#/proc/}" -le "$first" ] || set -- "$@" "$process/limits" "$process/environ"
  done
  [ "$#" -gt 0 ] || return 0
  [ -z "$(grep -l -e "^Max file locks  *$tag " -e "ANYSPAWN_ID=$id" "$@")" ]
}
look_after() {
  read -r _ _ _ _ first </proc/loadavg
  read -r began _ </proc/uptime
  work
  status=$?
  say "exit $status"
  if [ "$able" ] && alone; then
    ended=clean
  else
    round=0
    while held && [ "$round" -lt 3000 ]; do
      [ "$round" -gt 0 ] || say held
      sleep 0.02 || sleep 1 || round=3000
      round=$((round + 1))
    done
    if sweep && [ -n "$(probe)" ]; then ended=clean; else ended=unclean; fi
  fi
  printf '%s%s end%s' "$rs" "$nonce" "$rs"
  say "$ended"
}
able=$(command -v grep)
most=$(cat /proc/sys/kernel/pid_max) || able=
# Hundredths of a second in which no machine makes so many processes: it would be more than 300 in a millisecond.
soon=$((most / 3300))
while read -r nonce id tag size <&3; do
  [ -n "$size" ] || continue
  if [ "$size" = 0 ]; then feed | look_after; else feed | spool | look_after; fi
done
