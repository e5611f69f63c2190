# The common part of both supervisors: frames, starting a command, and finding and killing
# everything that it started. Names begin with _, because assigning to a variable that the container
# exports would change the environment of its programs.
_nl='
'
say() { printf "\036$_nonce $1\036" >&4; }
# A frame on the command's stdout comes after everything that the command wrote.
say_out() { printf "\036$_nonce $1\036"; }
_sight=$((_tag + 1))

# The tag is a limit that nothing enforces. Every descendant inherits it, whatever it does to its
# environment or session. A process is also known by its environment.
tagged() {
  while read -r _a _b _c _limit _rest; do
    case "$_a $_b $_c" in "Max file locks") [ "$_limit" = "$_tag" ]; return ;; esac
  done <"$1"
  return 1
}
# A process that searches has a limit of its own, so that another search does not kill it.
candidates() {
  if command -v grep >/dev/null; then
    grep -H -e "^Max file locks  *$_tag " -e "^Max file locks  *$_sight " /proc/[0-9]*/limits
    [ "$?" -le 2 ] || return 1
    grep -l "ANYSPAWN_ID=$_id" /proc/[0-9]*/environ
    [ "$?" -le 2 ]
  else
    for _file in /proc/[0-9]*/limits; do
      if tagged "$_file" || [ "$_limit" = "$_sight" ]; then echo "$_file: $_limit "; fi
    done
  fi
}
# Whether a process is dead. Zombies are: without an init they stay. A process whose first thread
# exited looks like a zombie, but lives while it has another thread. Sets the state, if there is a
# process.
dead() {
  _state=
  IFS= read -r _state <"$1/stat" || return 0
  case ${_state##*) } in
  [ZX]*) set -- "$1"/task/*; [ $# -le 1 ] ;;
  *) return 1 ;;
  esac
}
# Lists the processes that are left. Fails unless it finds itself: if /proc shows nothing, an empty
# list proves nothing. It tags its own process, so call it as $(left).
left() {
  read -r _me _x </proc/self/stat
  { ulimit -x "$_sight" || ulimit -w "$_sight"; } >/dev/null
  _seen=' ' _sees=
  IFS='
'
  _found=$(candidates) || return 1
  for _line in $_found; do
    _process=${_line%%/[le]*}
    case $_line in
    "/proc/$_me/limits:"*) _sees=yes; continue ;;
    *" $_sight "*) continue ;;
    esac
    case $_seen in *" $_process "*) continue ;; esac
    _seen="$_seen$_process "
    dead "$_process" || printf '%s ' "${_process#/proc/}"
  done
  [ "$_sees" ]
}
sweep() {
  _round=0
  while _pids=$(left) || return 1; [ -n "$_pids" ]; do
    [ "$_round" -lt "$1" ] || return 1
    _slew=yes
    kill -9 $_pids
    _round=$((_round + 1))
  done
}

# Counts how often the kernel killed something in this container for lack of memory.
ooms() {
  _ooms=
  for _file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r "$_file" ] || continue
    while read -r _a _b _rest; do
      [ "$_a" != oom_kill ] || _ooms=$_b
    done <"$_file"
  done
}
starved() {
  ooms
  [ "$_ooms" = "$_starved" ] || say oom
}

# Every process that a command leaves descends from a new child of the container's first process, to
# which the kernel gives orphans, or of this shell, to which CLONE_PARENT may give one. New children
# come last in the list. A child that is reaped while the list is read hides the next one, so each
# known child must still exist.
before() {
  ooms
  _starved=$_ooms _old=
  read -r _began _x </proc/uptime
  [ -z "$_adopts" ] || read -r _old </proc/1/task/1/children
  # if nothing reaps zombies, the list may become too long to read
  [ "${#_old}" -lt 6000 ] || _adopts=
}
adopted() {
  _new= _own= _list= _listed=
  { read -r _own || :; } </proc/thread-self/children &&
    { read -r _list || :; } </proc/1/task/1/children && _listed=yes
  case "$_list " in
  "$_old "*) _early=$_old _late=${_list#"$_old"} ;;
  *) _early= _late=$_list ;;
  esac
  for _child in $_early; do [ -e "/proc/$_child" ] || _new="$_new $_child"; done
  for _child in $_own $_late; do
    case " $_old $_watcher $_self $$ " in
    *" $_child "*) [ -e "/proc/$_child" ] || _new="$_new $_child" ;;
    *) _new="$_new $_child" ;;
    esac
  done
  [ "$_new" ]
}
# A program can hide: it can lower its limit, but not raise it again. A new process with a lower
# limit is this command's, or another's whose supervisor will kill it soon. In a container for one
# command (_alone) it is this command's.
hides() {
  case $_limit in '' | *[!0-9]*) return 1 ;; esac
  [ "$_limit" -lt "$_tag" ]
}
# Kills processes that start a copy and exit before a search finds them: after a few rounds it stops
# new processes to examine them. Those of other commands continue, and are known from then on. It
# forks nothing, because that may be impossible. It ends within the caller's _patience.
chase() {
  [ "$_adopts" ] || return 0
  read -r _self _x </proc/self/stat
  read -r _until _x </proc/uptime
  _until=$((${_until%.*} + ${_patience:-2})) _round=0
  # the second check is for a process with the number of a known one
  while adopted || adopted; do
    [ "$_round" -lt 5 ] || kill -s STOP $_new
    _gone= _hidden=
    for _child in $_new; do
      _tagged= _limit=
      tagged "/proc/$_child/limits" && _tagged=yes
      if dead "/proc/$_child"; then
        _gone=yes
        [ -z "$_state" ] || _old="$_old $_child"
      elif [ "$_tagged" ] || { [ "$_alone" ] && hides; }; then
        _gone=yes _slew=yes
        kill -9 "$_child" # it may have a child that is not listed before it is dead
      elif hides; then
        _hidden=yes
        [ "$_round" -lt 5 ] || kill -s CONT "$_child"
      else
        _old="$_old $_child"
        [ "$_round" -lt 5 ] || kill -s CONT "$_child"
      fi
    done
    [ "$_gone$_hidden" ] || return 0
    read -r _now _x </proc/uptime
    [ "${_now%.*}" -lt "$_until" ] || { [ "$_alone" ] || say elusive; return 1; }
    [ "$_gone" ] || sleep 0.05 || sleep 1
    _round=$((_round + 1))
  done
}
# Kills everything that is left of a command, and reports whether there was something.
clear_up() {
  if sweep 20; then chase; else chase && sweep 300; fi
  _cleared=$?
  [ -z "$_slew" ] || say killed
  return "$_cleared"
}
# Whether nothing is left, by one check without a fork. It counts only if the command was short:
# later, another process may have a known number.
alone() {
  [ "$_adopts" ] && read -r _now _x </proc/uptime || return 1
  [ "$((1${_now%.*}${_now#*.} - 1${_began%.*}${_began#*.}))" -lt "$_soon" ] || return 1
  ! adopted && [ "$_listed" ]
}
_adopts= _old= _watcher= _self= _slew=
read -r _x _rest </proc/self/stat
case $$,$PPID in
"$_x",[01]) [ -e /proc/1/task/1/children ] && [ -e /proc/thread-self/children ] && _adopts=yes ;;
esac
# Hundredths of a second in which no number is reused, because no machine starts 330 processes a
# millisecond.
_soon=0
! read -r _x </proc/sys/kernel/pid_max || _soon=$((_x / 3300 + 1))

# Whether a process that is left holds one of the command's streams.
held() {
  for _pid in $(left); do
    for _fd in /proc/"$_pid"/fd/*; do
      if [ "$_fd" -ef /proc/$$/fd/1 ] || [ "$_fd" -ef /proc/$$/fd/4 ]; then return 0; fi
    done
  done
  return 1
}
# Kills everything that is left of the command, as soon as it holds no stream or the caller no
# longer waits for that.
finish() {
  _round=0
  while held && waited_for; do
    [ "$_round" -gt 0 ] || say held
    sleep 0.02 || sleep 1 || cannot_sleep
    _round=$((_round + 1))
  done
  clear_up
}

# Writes the command's stdin, and reports whether all of it was written before it closes the pipe.
# Without a report, the command may have read an incomplete stdin.
hand_over() {
  trap 'say lost' EXIT
  exec 5>&1
  _copied=$(LC_ALL=C dd bs="$_size" count=1 iflag=fullblock 2>&1 >&5)
  case $?,$_copied in
  "0,1+0 records in"*"1+0 records out"*) _word=fed ;;
  1,*records*) _word=lost ;;
  [12],* | 12[67],*) # no such dd, or no memory for it
    if "$@"; then _word=fed; else _word=lost; fi
    ;;
  *) _word=lost ;;
  esac
  say "$_word"
  trap - EXIT
}
# A stdin that a pipe cannot hold goes through the memory of dd: a command that does not read it
# must not keep us from seeing the end of our own stdin. The first line is this process's number.
spool() {
  exec 3<&-
  read -r _own _x </proc/self/stat
  echo "$_own"
  hand_over cat
}

# The script of the shell that becomes the program. Arguments: the working directory or nothing, and
# argv. The program's variables may have any name that does not begin with ANYSPAWN_.
_untold='trap "printf \"\\036$ANYSPAWN_NONCE unstarted \$?\\036\" >&2" EXIT
'
_settle=$_untold'
[ -z "$BASH_VERSION" ] || shopt -s execfail
if [ -n "$1" ]; then
  CDPATH= cd -- "$1" >/dev/null 2>&1 || { printf "\036$ANYSPAWN_NONCE nocwd\036" >&2; exit 126; }
  unset OLDPWD
fi
shift
while [ "$ANYSPAWN_COUNT" -gt 0 ]; do
  eval "export \"\$ANYSPAWN_ENV_$ANYSPAWN_COUNT\"" || exit 125
  unset "ANYSPAWN_ENV_$ANYSPAWN_COUNT"
  ANYSPAWN_COUNT=$((ANYSPAWN_COUNT - 1))
done
'
_become='
[ -z "$ANYSPAWN_MERGE" ] || exec 2>&1
unset ANYSPAWN_COUNT ANYSPAWN_NONCE ANYSPAWN_MERGE ANYSPAWN_ASK
exec "$@"
exit'
# Runs the command. Arguments: the working directory or nothing, its variables, an empty word, its
# argv. Another shell (_start) sets the variables, and distinguishes a program that cannot be
# executed from one that exits with 127. A program that a resident knows needs no such shell.
work() (
  { ulimit -x "$_tag" || ulimit -w "$_tag"; } && $_proof /proc/self/limits || say untagged
  ANYSPAWN_ID=$_id ANYSPAWN_NONCE=$_nonce ANYSPAWN_COUNT=0 ANYSPAWN_MERGE=$_merge _cwd=$1
  export ANYSPAWN_ID ANYSPAWN_NONCE ANYSPAWN_COUNT ANYSPAWN_MERGE
  if [ "$_turn" ]; then
    echo "$_turn" >&8
    eval "$_untold"
  fi
  exec 2>&4 3<&- 4>&- 5<&- 6>&- 8>&- 9<&-
  shift
  while [ -n "$1" ]; do
    ANYSPAWN_COUNT=$((ANYSPAWN_COUNT + 1))
    eval "ANYSPAWN_ENV_$ANYSPAWN_COUNT=\$1; export ANYSPAWN_ENV_$ANYSPAWN_COUNT"
    shift
  done
  shift
  if [ "$_known" = yes ]; then
    set -- "$_cwd" ${_session:+"$_session"} "$@"
    eval "$_settle$_become"
  fi
  [ -z "$_known" ] || export ANYSPAWN_ASK=yes
  exec $_session sh -c "$_start" anyspawn "$_cwd" "$@"
)
