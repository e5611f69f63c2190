# Looks after one command inside a container. Its stdin is a header line, a line for each variable,
# the command's stdin, and then nothing: when it ends, whoever called is gone, or wants the end, and
# the whole tree is killed. What it has to say stands in frames on stderr, and two on stdout, which
# the caller takes out again. It is given nothing before it has said that it is ready: what else
# might read its stdin, such as a client that asks for a password, gets none.
read -r _nonce _id _tag _count _size _leaves || exit 125
exec 3<&0 4>&2 2>/dev/null
_alone=
_i=0
while [ "$_i" -lt "$_count" ]; do
  IFS= read -r _line || exit 125
  _i=$((_i + 1))
  eval "ANYSPAWN_ENV_$_i=\$_line"
done

# The stdin of a live program comes in lines, each a format for printf, or . and a number of bytes
# that follow; "-" is the end. A process beside writes them, so that a program that does not read
# cannot keep the end of our own stdin from being seen. It has read a chunk before it writes any of
# it, and there is no other chunk before it has said what became of that one.
stream() {
  while IFS= read -r _line <&3; do
    case $_line in
      -) exec >/dev/null ;;
      .*) printf '%s\n' "$_line"; head -c "${_line#.}" <&3 ;;
      *) printf '%s\n' "$_line" ;;
    esac
  done
}
pass() {
  trap '' PIPE
  exec 3<&-
  IFS= read -r _line
  printf '%s\n' "$_line"
  _dd=
  while IFS= read -r _line; do
    if case $_line in
      .*)
        [ "$_dd" ] || if dd bs=1 count=0 iflag=fullblock </dev/null; then _dd=yes; else _dd=no; fi
        case $_dd in
          yes) dd bs="${_line#.}" count=1 iflag=fullblock ;;
          *) head -c "${_line#.}" ;;
        esac
        ;;
      *) printf "$_line" ;;
    esac; then say took; else say broke; fi
  done
}
# Says that a live program has taken the place of the shell that starts it, as its environment
# shows; where one cannot look, that it should have by now.
announce() {
  trap exit TERM
  _n=0
  while [ "$_n" -lt 50 ]; do
    for _file in $(grep -l "ANYSPAWN_ID=$_id" /proc/[0-9]*/environ); do
      case $(grep -aho -e "ANYSPAWN_ID=$_id" -e "ANYSPAWN_NONCE=$_nonce" "$_file") in
        # In one look, as that of a process which ends, or is executing another, shows none.
        *NONCE*) ;;
        *ID*) say running; exit ;;
      esac
    done
    sleep 0.01 || { sleep 1; _n=$((_n + 20)); }
    _n=$((_n + 1))
  done
  say running
}

# The first line is the number of this process. It waits for the end of our own stdin by a builtin,
# so that killing it orphans nothing; when it ends what is left, nothing kills it.
feed() {
  read -r _feeder _rest </proc/self/stat
  echo "$_feeder"
  if [ "$_size" = - ]; then
    stream
  elif [ "$_size" -gt 65000 ]; then
    head -c "$_size" <&3 || say lost
  elif [ "$_size" -gt 0 ]; then
    hand_over head -c "$_size" <&3
  fi
  exec >/dev/null 4>&- 5>&-
  while read -r _rest <&3; do :; done
  trap '' USR1
  sweep 300
}
_start='
ANYSPAWN_n="
"
ANYSPAWN_frame=$(printf "\036")$ANYSPAWN_NONCE
ANYSPAWN_i=0 ANYSPAWN_merge=
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
[ -z "$ANYSPAWN_merge" ] || exec 2>&1
exec "$@"'
work() (
  exec 2>&4 3<&- 4>&-
  { ulimit -x "$_tag" || ulimit -w "$_tag"; } 2>/dev/null
  tagged /proc/self/limits || printf '%s%s untagged%s' "$_rs" "$_nonce" "$_rs" >&2
  ANYSPAWN_ID=$_id ANYSPAWN_COUNT=$_count ANYSPAWN_NONCE=$_nonce
  export ANYSPAWN_ID ANYSPAWN_COUNT ANYSPAWN_NONCE
  while [ "$_i" -gt 0 ]; do
    export "ANYSPAWN_ENV_$_i"
    _i=$((_i - 1))
  done
  exec $_session sh -c "$_start" anyspawn "$@"
)
# Lets what is left run on, until it has ended, or whoever called is gone, or wants its end.
leave() {
  _pids=$(left) && [ "$_pids" ] || return
  printf '%s%s end%s' "$_rs" "$_nonce" "$_rs"
  say left
  _round=1
  while ! dead "/proc/$_feeder" && { [ "$((_round % 20))" != 0 ] || [ "$(left)" ]; }; do
    sleep 0.2 || sleep 1 || while read -r _rest <&3; do :; done
    _round=$((_round + 1))
  done
}
look_after() {
  trap 'say failed' EXIT
  before
  read -r _feeder
  _writer=$_feeder
  [ "$_size" = - ] || [ "$_size" -le 65000 ] || read -r _writer
  _announcer=
  if [ "$_size" = - ]; then announce & _announcer=$!; fi
  work "$@"
  _status=$?
  [ "$_status" = 0 ] || starved
  if [ -n "$_announcer" ]; then exec </dev/null; kill "$_announcer"; wait "$_announcer"; fi
  # Whoever is there has not closed the pipe yet, unless it has said what became of the stdin.
  [ "$_size" = - ] || [ "$_size" = 0 ] || dead "/proc/$_writer" || say unread
  say "exit $_status"
  [ -z "$_leaves" ] || leave
  _told=
  while held && kill -0 "$_feeder"; do
    [ "$_told" ] || say held
    _told=1
    sleep 0.02 || sleep 1 || while read -r _rest <&3; do :; done
  done
  clear_up
  _swept=$?
  printf '%s%s end%s' "$_rs" "$_nonce" "$_rs"
  [ "$_swept" != 0 ] || say clean
  trap - EXIT
  kill -s USR1 "$_feeder"
}
trap 'say failed' EXIT
if [ "$_size" = - ]; then
  feed | pass | look_after "$@"
elif [ "$_size" -le 65000 ]; then
  feed | look_after "$@"
else
  feed | { read -r _feeder; echo "$_feeder"; spool; } | look_after "$@"
fi
trap - EXIT
exit 0
