# Looks after one command after the other inside a container. Its stdin is this script, and then a
# line for each command, which calls `run`. While a command runs the lines are another process's, a
# word each: t, send it SIGTERM; k, kill it; x, the caller has seen that it is gone. When stdin ends
# the whole tree is killed.
exec 3<&0 4>&2 2>/dev/null
_nl='
'
# A word that was too late for its command, or too early, is none of the script.
t() { :; }
k() { :; }
# The process beside is given its turn (y) by the command itself, once there is something that it
# would find, or by what has read a long stdin to its end; then the command says that it is there
# (h). When the command is over (o), and there was no turn, its giver was killed, and all ends.
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
# The command may be just about to begin: it is looked for again when it says that it is there, and
# when it is over.
hung_up() {
  sweep 300
  echo >&6
  while read -r _turn <&7; do sweep 300; done
  exit
}

# A pipe with the ends 5 and 6, made without another process where the shell keeps a here-document
# in one; older ones of bash keep it in a file, for which there may be no place.
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
# It goes first, as it would otherwise be left, a zombie, to a container's first process, which may
# not look after any.
trap '[ "$?" = 0 ] || give_up; exec 8>&-; kill "$_watcher"; wait' EXIT
_watcher=$!
exec 6>&- 7<&-

_settle='
ANYSPAWN_frame=$ANYSPAWN_NONCE
trap "printf \"%s unstarted \$?\\036\" \"\$ANYSPAWN_frame\" >&2" EXIT
[ -z "$BASH_VERSION" ] || shopt -s execfail
if [ -n "$1" ]; then
  CDPATH= cd -- "$1" >/dev/null 2>&1 || { printf "%s nocwd\036" "$ANYSPAWN_frame" >&2; exit 126; }
  unset OLDPWD
fi
shift
while [ "$ANYSPAWN_COUNT" -gt 0 ]; do
  eval "export \"\$ANYSPAWN_ENV_$ANYSPAWN_COUNT\"" || exit 125
  unset "ANYSPAWN_ENV_$ANYSPAWN_COUNT"
  ANYSPAWN_COUNT=$((ANYSPAWN_COUNT - 1))
done
unset ANYSPAWN_COUNT ANYSPAWN_NONCE
'
_start=$_settle'
if [ "$ANYSPAWN_ASK" ]; then
  ANYSPAWN_FILE=$(command -v -- "$1")
  { case $ANYSPAWN_FILE in
  */*) ANYSPAWN_FILE=$(head -c 4 "$ANYSPAWN_FILE") ;;
  ?*) ANYSPAWN_FILE="#!" ;;
  esac; } 2>/dev/null
  case $ANYSPAWN_FILE in "#!"* | ?ELF) printf "%s fit\036" "$ANYSPAWN_frame" >&2 ;; esac
  unset ANYSPAWN_ASK ANYSPAWN_FILE
fi
if [ "$ANYSPAWN_MERGE" ]; then
  unset ANYSPAWN_MERGE
  exec 2>&1
fi
exec "$@"
exit'
_look=$_settle'
ANYSPAWN_FILE=$(command -v -- "$1") && [ "${ANYSPAWN_FILE#*/}" != "$ANYSPAWN_FILE" ] &&
  [ -x "$ANYSPAWN_FILE" ] && [ ! -d "$ANYSPAWN_FILE" ]'
# What is known to be a program goes without the shell between, which tells what cannot be executed
# from what returns 127. Where it is to become known, that shell says whether any exec executes it:
# a script without #! is executed by some alone.
work() (
  {
    ulimit -x "$_tag" || ulimit -w "$_tag" ||
      printf '%s%s untagged%s' "$_rs" "$_nonce" "$_rs" >&4
  } 2>/dev/null
  [ -z "$_turn" ] || echo "$_turn" >&8
  exec 2>&4 3<&- 4>&- 5<&- 6>&- 8>&- 9<&-
  ANYSPAWN_ID=$_id ANYSPAWN_NONCE=$_rs$_nonce ANYSPAWN_COUNT=0 ANYSPAWN_SESSION=$_session
  trap 'printf "%s unstarted $?\036" "$ANYSPAWN_NONCE" >&2' EXIT
  export ANYSPAWN_ID
  if [ "$_known" = yes ]; then
    if [ "$1" ]; then
      CDPATH= cd -- "$1" >/dev/null 2>&1 || {
        printf '%s nocwd\036' "$ANYSPAWN_NONCE" >&2
        exit 126
      }
      unset OLDPWD
    fi
    shift
    while [ "$1" ]; do
      export "$1" || exit 125
      shift
    done
    shift
    [ -z "$_merge" ] || exec 2>&1
    exec ${ANYSPAWN_SESSION:+"$ANYSPAWN_SESSION"} "$@"
  fi
  _cwd=$1
  shift
  while [ -n "$1" ]; do
    ANYSPAWN_COUNT=$((ANYSPAWN_COUNT + 1))
    eval "ANYSPAWN_ENV_$ANYSPAWN_COUNT=\$1; export ANYSPAWN_ENV_$ANYSPAWN_COUNT"
    shift
  done
  shift
  [ -z "$_known" ] || export ANYSPAWN_ASK=yes
  [ -z "$_merge" ] || export ANYSPAWN_MERGE=yes
  export ANYSPAWN_NONCE ANYSPAWN_COUNT
  exec $_session sh -c "$_start" anyspawn "$_cwd" "$@"
)
# Two things that ended without a word of ours are looked into: what was a program before may be
# none any more, of which setsid's words on stderr have to speak, too; and what bash cannot execute
# as its arguments are too long, which then cannot be executed without a program either.
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
# Whether nothing is left of the command, by one look, and without a process. Where it ran for so
# long that numbers may have been given out again, what is known by its number may be something
# else.
alone() {
  [ "$_adopts" ] && read -r _now _x </proc/uptime || return 1
  [ "$((1${_now%.*}${_now#*.} - 1${_began%.*}${_began#*.}))" -le "$_soon" ] && ! adopted
}
# Arguments: the word of its frames; its stdin, as a printf format after =, or as a number of bytes,
# which follow when they are asked for; yes for a program known to be one, ask for one that may
# become known, or nothing; its working directory, or nothing; its variables, and nothing; its own
# arguments.
run() {
  _nonce=$1 _input=$2 _known=${_exact:+$3}
  shift 3
  read -r _began _x </proc/uptime
  if [ -z "$_ran" ]; then
    printf '%s%s start%s' "$_rs" "$_nonce" "$_rs"
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
    before # so that it is known here where there are too many
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
      printf '%s' "$_told" >&4
      [ "$_verdict" = clean ]
    }; then _verdict=clean; else _verdict=unclean; fi
    _told=
    ;;
  esac
  printf '%s%s%s %s%s' "$_told" "$_rs" "$_nonce" "$_verdict" "$_rs" >&4
  echo o >&8
  read -r _x <&9 || exit
  [ "$_alone" ] || exit 0
}
# Ends what is left of the command. Sets what there is to tell of its end yet, and the verdict.
judge() {
  _verdict=clean
  _told="$_rs$_nonce exit $_status$_rs"
  if [ -z "$_able" ] || ! alone; then
    printf '%s' "$_told" >&4
    _told=
    _round=0
    while held && [ "$_round" -lt 3000 ]; do
      [ "$_round" -gt 0 ] || say held
      sleep 0.02 || sleep 1 || _round=3000
      _round=$((_round + 1))
    done
    clear_up || _verdict=unclean
  fi
  printf '%s%s end%s' "$_rs" "$_nonce" "$_rs"
}
# Nothing is known where setsid might find another program than the shell, as PATH is not set, or
# has other statuses.
_ran= _most= _exact= _merge=
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
if command -v grep >/dev/null && _most=$(cat /proc/sys/kernel/pid_max); then
  if _x=$(left); then _able=yes; fi
fi
# Hundredths of a second in which no machine makes so many processes: it would be more than 300 in a
# millisecond.
_soon=$((_most / 3300))
