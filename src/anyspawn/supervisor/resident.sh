# Looks after one command after the other inside a container. A shell reads this from its stdin, and then a line for each
# command, which calls `run`. While a command runs the lines are another process's, a word each: t, send it SIGTERM; k, kill it;
# x, the caller has seen that it is gone. When stdin ends the whole tree is killed.
exec 3<&0 4>&2 2>/dev/null
# A word that was too late for its command, or too early, is none of the script.
t() { :; }
k() { :; }
watch() {
  exec >/dev/null 4>&- 8>&- 9<&-
  while read -r _turns <&7; do
    [ "$_turns" = 1 ] || read -r _ <&7
    while read -r _word <&3 || { sweep; exit; }; do
      case $_word in
      t) kill -15 $(left) ;;
      k) kill -9 $(left) ;;
      x) break ;;
      esac
    done
    echo >&6
  done
}

# A pipe with the ends 5 and 6, made without another process where the shell keeps a here-document in one; older ones of bash
# keep it in a file, for which there may be no place.
here() {
  exec 5<<E
-
E
}
pipe() {
  if [ "$_piped" ]; then
    here
    read -r _ <&5
  elif [ "$BASH_VERSION" ]; then
    set +o posix
    eval 'exec 5< <(:)'
  else
    echo "anyspawn: the sh of a resident must keep here-documents in pipes, as those of busybox, dash and bash do" >&4
    exit 125
  fi
  exec 6>/proc/self/fd/5
}
_piped=$(here && [ -p /proc/self/fd/5 ] && echo yes)
pipe
exec 7<&5 8>&6
pipe
exec 9<&5 5<&-
watch &
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
_start=$_settle'exec "$@"
exit'
_look=$_settle'case $1 in
*/*) [ -x "$1" ] && [ ! -d "$1" ] ;;
*) command -v -- "$1" ;;
esac'
# The process beside has its turn once there is something that it would find; and once a long stdin was read. What is known to be a
# program goes without the shell between, which tells what cannot be executed from what returns 127.
work() (
  { ulimit -x "$_tag" || ulimit -w "$_tag" || printf '%s%s untagged%s' "$_rs" "$_nonce" "$_rs" >&4; } 2>/dev/null
  [ -z "$_turns" ] || echo "$_turns" >&8
  exec 2>&4 3<&- 4>&- 5<&- 6>&- 8>&- 9<&-
  ANYSPAWN_ID=$_id ANYSPAWN_NONCE=$_rs$_nonce ANYSPAWN_COUNT=0 ANYSPAWN_SESSION=$_session
  trap 'printf "%s unstarted $?\036" "$ANYSPAWN_NONCE" >&2' EXIT
  export ANYSPAWN_ID
  if [ "$_known" ]; then
    if [ "$1" ]; then
      CDPATH= cd -- "$1" >/dev/null 2>&1 || { printf '%s nocwd\036' "$ANYSPAWN_NONCE" >&2; exit 126; }
      unset OLDPWD
    fi
    shift
    while [ "$1" ]; do
      export "$1" || exit 125
      shift
    done
    shift
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
  export ANYSPAWN_NONCE ANYSPAWN_COUNT
  exec $_session sh -c "$_start" anyspawn "$_cwd" "$@"
)
# Two things that ended without a word of ours are looked into: what was a program before may be none any more; and what bash cannot
# execute as its arguments are too long, which then cannot be executed without a program either.
attempt() {
  work "$@"
  _status=$?
  _doubt=
  case $_known,$_status in
  yes,12[67]) _doubt=$_look ;;
  ,126) [ -z "$BASH_VERSION" ] || _doubt=: ;;
  esac
  if [ "$_doubt" ] && ! (_known= _turns= _start=$_doubt && work "$@") </dev/null >/dev/null 4>&1; then say "unstarted $_status"; fi
}
# Whether nothing is left of the command, by one look. What it started has higher numbers than what was there before, unless it
# ran for so long that they may have begun anew; and what another resident has started is a child of that one, which what
# the command leaves behind cannot become.
alone() {
  read -r _ _ _ _ _last </proc/loadavg || return 1
  read -r _now _ </proc/uptime || return 1
  if [ "$((${_now%.*}${_now#*.} - ${_began%.*}${_began#*.}))" -gt "$_soon" ] || [ "$_last" -lt "$_first" ]; then _first=0; fi
  [ "$_last" -ne "$((_first + 1))" ] || return 0
  set --
  for _process in /proc/[0-9]*; do
    [ "${_process#/proc/}" -le "$_first" ] || set -- "$@" "$_process"
  done
  _others=
  for _other in $_residents; do
    if [ "$_other" -le "$_first" ] && [ "$_other" != "$$" ]; then
      _children=
      read -r _children </proc/"$_other"/task/"$_other"/children
      _others="$_others $_children "
    fi
  done
  _doubtful=
  for _process; do
    case $_others in *" ${_process#/proc/} "*) ;; *) [ ! -e "$_process" ] || _doubtful="$_doubtful $_process/limits $_process/environ" ;; esac
  done
  [ "$_doubtful" ] || return 0
  [ -z "$(grep -l -e "^Max file locks  *$_tag " -e "ANYSPAWN_ID=$_id" $_doubtful)" ]
}
# Arguments: the word of its frames; its stdin, as a printf format after =, or as a number of bytes, which follow when they are
# asked for; the residents beside this one; yes for a program known to be one, or nothing; its working directory, or nothing; its variables, and nothing; its own arguments.
run() {
  _nonce=$1 _input=$2 _residents=$3 _known=${_path:+$4}
  shift 4
  read -r _ _ _ _ _first </proc/loadavg
  read -r _began _ </proc/uptime
  if [ -z "$_ran" ]; then
    printf '%s%s start%s' "$_rs" "$_nonce" "$_rs"
    say "resident $$"
    _ran=yes
  fi
  say start
  _turns=1
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
    say send
    _turns=2
    if { head -c "$_input" <&3 || lost "$?"; echo 2 >&8; say took; } | { _size=$_input; spool; } | {
      attempt "$@"
      judge
      printf '%s' "$_told" >&4
      [ "$_verdict" = clean ]
    }; then _verdict=clean; else _verdict=unclean; fi
    _told=
    ;;
  esac
  printf '%s%s%s %s%s' "$_told" "$_rs" "$_nonce" "$_verdict" "$_rs" >&4
  read -r _ <&9 || exit
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
    sweep && [ -n "$(probe)" ] || _verdict=unclean
  fi
  printf '%s%s end%s' "$_rs" "$_nonce" "$_rs"
}
# Without PATH in the environment a shell and setsid have defaults of their own, by which they may find different programs.
_path=
case $(export -p) in *" PATH="*) _path=yes ;; esac
_able=
if command -v grep >/dev/null && _most=$(cat /proc/sys/kernel/pid_max); then _able=$(probe); fi
# Hundredths of a second in which no machine makes so many processes: it would be more than 300 in a millisecond.
_soon=$((_most / 3300))
