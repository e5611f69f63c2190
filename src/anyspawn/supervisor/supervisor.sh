# Runs one command inside a container. Its stdin is a line with the task, then the command's stdin,
# and then stays open: when it is closed, the caller is gone or ends the call, and the supervisor
# kills everything. The caller sends nothing before `ready`: a client that asks for a password must
# not read it.
IFS= read -r _line || exit 125
eval "$_line"
exec 3<&0 4>&2 2>/dev/null
_alone= _known= _turn= _session= _proof=tagged
! command -v setsid >/dev/null || _session=setsid

# The stdin of a live program comes in lines: a format for printf, or . and the size of the chunk
# that follows; "-" is the end. Another process (pass) writes it: a program that does not read must
# not prevent this one from seeing the end of its own stdin. The next chunk waits for the answer to
# this one.
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
# Reports when a live program has replaced the shell that starts it, as its environment shows; if
# that cannot be seen, after a while.
announce() {
  trap exit TERM
  _n=0
  while [ "$_n" -lt 50 ]; do
    for _file in $(grep -l "ANYSPAWN_ID=$_id" /proc/[0-9]*/environ); do
      case $(grep -aho -e "ANYSPAWN_ID=$_id" -e "ANYSPAWN_NONCE=$_nonce" "$_file") in
        # one look for both: the environment of a process that exits or executes is empty
        *NONCE*) ;;
        *ID*) say running; exit ;;
      esac
    done
    sleep 0.01 || { sleep 1; _n=$((_n + 20)); }
    _n=$((_n + 1))
  done
  say running
}

# The first line is this process's number. It waits for the end of stdin by a builtin, so that
# killing it orphans nothing. Once it kills what is left, nothing kills it.
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
_start=$_settle'
printf "\036$ANYSPAWN_NONCE start\036"
printf "\036$ANYSPAWN_NONCE start\036" >&2'$_become
# Waits while something is left, and the caller does not end it.
leave() {
  _pids=$(left) && [ "$_pids" ] || return
  say_out end
  say left
  _round=1
  while ! dead "/proc/$_feeder" && { [ "$((_round % 20))" != 0 ] || [ "$(left)" ]; }; do
    sleep 0.2 || sleep 1 || cannot_sleep
    _round=$((_round + 1))
  done
}
waited_for() { kill -0 "$_feeder"; }
cannot_sleep() { while read -r _rest <&3; do :; done; }
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
  # A writer that still runs has not closed the pipe, or has reported the result.
  [ "$_size" = - ] || [ "$_size" = 0 ] || dead "/proc/$_writer" || say unread
  say "exit $_status"
  if alone; then
    _swept=0
  else
    [ -z "$_leaves" ] || leave
    finish
    _swept=$?
  fi
  say_out end
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
