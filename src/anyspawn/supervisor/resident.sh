# Runs one command after the other inside a container. Its stdin is this script, and then a line for
# each command, which calls `run`. While a command runs, another process (watch) reads messages, one
# word a line: t, send SIGTERM; k, kill; x, the caller knows that the command is over. When stdin is
# closed, it kills everything.
exec 3<&0 4>&2 2>/dev/null
# Messages that come too early or too late have no effect.
t() { :; }
k() { :; }
# The command itself gives the watcher its turn (y) as soon as it can be found, or the reader of a
# long stdin does; then the command reports that it exists (h). If the command is over (o) without a
# turn, the process that should have given it was killed, and the resident exits.
watch() {
  exec >/dev/null 4>&- 8>&- 9<&-
  _had=
  while read -r _turn <&7; do
    case $_turn in
    h) continue ;;
    o) [ "$_had" ] || exit; _had=; continue ;;
    esac
    _had=yes
    while read -r _word <&3 || hung_up; do
      case $_word in
      t) kill -15 $(left) ;;
      k) kill -9 $(left) ;;
      x) break ;;
      esac
    done
    echo >&6
  done
}
# The command may be about to start: search again when it reports that it exists, and when it is
# over.
hung_up() {
  sweep 300
  echo >&6
  while read -r _turn <&7; do sweep 300; done
  exit
}

# Makes a pipe with the ends 5 and 6, from a here-document: no fork. Older versions of bash keep
# here-documents in files.
here() {
  exec 5<<E
-
E
}
pipe() {
  if [ "$_piped" ]; then
    here
    read -r _line <&5
  elif [ "$BASH_VERSION" ]; then
    set +o posix
    eval 'exec 5< <(:)'
  else
    echo "anyspawn: a resident's sh must keep here-documents in pipes, as busybox and dash do" >&4
    exit 125
  fi
  exec 6>/proc/self/fd/5
}
_piped=$(here && [ -p /proc/self/fd/5 ] && echo yes)
pipe
exec 7<&5 8>&6
pipe
exec 9<&5 5<&-
give_up() {
  if [ "$_nonce" ]; then say failed; else echo "anyspawn: no process could be started" >&4; fi
}
_nonce=
trap give_up EXIT
watch &
# The watcher exits first: a container's first process may not reap it.
trap '[ "$?" = 0 ] || give_up; exec 8>&-; kill "$_watcher"; wait' EXIT
_watcher=$!
exec 6>&- 7<&-

_proof=: # the first look has shown that the tag can be seen
_start=$_settle'
if [ "$ANYSPAWN_ASK" ]; then
  ANYSPAWN_FILE=$(command -v -- "$1")
  { case $ANYSPAWN_FILE in
  */*) ANYSPAWN_FILE=$(head -c 4 "$ANYSPAWN_FILE") ;;
  ?*) ANYSPAWN_FILE="#!" ;;
  esac; } 2>/dev/null
  case $ANYSPAWN_FILE in "#!"* | ?ELF) printf "\036$ANYSPAWN_NONCE fit\036" >&2 ;; esac
  unset ANYSPAWN_FILE
fi'$_become
_look=$_settle'
ANYSPAWN_FILE=$(command -v -- "$1") && [ "${ANYSPAWN_FILE#*/}" != "$ANYSPAWN_FILE" ] &&
  [ -x "$ANYSPAWN_FILE" ] && [ ! -d "$ANYSPAWN_FILE" ]'
# Examines two statuses without a report: a known program may be gone (setsid then says so on
# stderr), and bash does not report arguments that are too long.
attempt() {
  before
  work "$@"
  _status=$?
  [ "$_status" = 0 ] || starved
  case $_known,$_status in
  yes,12[67]) again "$_look" "$@" || say "gone $_status" ;;
  *,126) [ -z "$BASH_VERSION" ] || again : "$@" || say "unstarted 126" ;;
  esac
}
again() (
  _known= _turn= _start=$1
  shift
  work "$@"
) </dev/null >/dev/null 4>&1
# Arguments: the nonce; stdin, as = and a printf format, or as a size, then it comes when asked for;
# yes for a known program, ask for one that may become known, or nothing; and those of `work`.
run() {
  _nonce=$1 _input=$2 _known=${_exact:+$3}
  shift 3
  if [ -z "$_ran" ]; then
    say_out start
    _ran=yes
  fi
  say start
  _turn=y
  case $_input in
  =)
    attempt "$@" </dev/null
    judge
    ;;
  =*)
    pipe
    printf "${_input#=}" >&6
    exec 6>&-
    attempt "$@" <&5
    judge
    ;;
  *)
    before # here too, as it may unset _adopts
    say send
    _turn=h
    if {
      head -c "$_input" <&3 || { say lost; cat <&3 >/dev/null; }
      echo y >&8
      say took
    } | { _size=$_input; spool; } | {
      trap 'say failed' EXIT
      read -r _writer
      attempt "$@"
      dead "/proc/$_writer" || say unread
      judge
      trap - EXIT
      printf "$_told" >&4
      [ "$_verdict" = clean ]
    }; then _verdict=clean; else _verdict=unclean; fi
    _told=
    ;;
  esac
  printf "$_told\036$_nonce $_verdict\036" >&4
  echo o >&8
  read -r _x <&9 || exit
  [ "$_alone" ] || exit 0
}
waited_for() { [ "$_round" -lt 3000 ]; }
cannot_sleep() { _round=3000; }
# Kills what is left of the command. Sets the verdict, and the reports that are still to be sent.
judge() {
  _verdict=clean
  _told="\036$_nonce exit $_status\036"
  if [ -z "$_able" ] || ! alone; then
    printf "$_told" >&4
    _told=
    finish || _verdict=unclean
  fi
  say_out end
}
# No program is known if setsid may find another one than the shell does, because PATH is not set,
# or if setsid has statuses of its own.
_ran= _exact= _merge=
_session=$(command -v setsid)
case $(export -p) in
*" PATH="*)
  if [ -z "$_session" ] || { "$_session" /; [ "$?" = 126 ]; }; then
    _exact=yes
  elif [ "$("$_session" sh -c 'echo yes')" != yes ]; then # it executes nothing
    _session=
  fi
  ;;
esac
_able=
! command -v grep >/dev/null || ! _x=$(left) || _able=yes
