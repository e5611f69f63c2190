# What every supervisor knows: how to say something, and how to find and end all that a command
# started. Names begin with _, as a variable that the container exports, and a program of it is to
# see, would change with one of the same name here.
_rs=$(printf '\036')
say() { printf '%s%s %s%s' "$_rs" "$_nonce" "$1" "$_rs" >&4; }
_session=$(command -v setsid)
_sight=$((_tag + 1))

# The tag is a limit that nothing enforces, and that every descendant inherits whatever it does to
# its environment or session; what keeps its environment is known by that, too. Zombies do not
# count: without an init they stay.
tagged() {
  while read -r _a _b _c _limit _rest; do
    case "$_a $_b $_c" in "Max file locks") [ "$_limit" = "$_tag" ]; return ;; esac
  done <"$1"
  return 1
}
# The one who looks has a limit of its own, so that nobody ends it who looks at the same time.
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
# A process whose first thread has ended looks like a zombie, and is none as long as it has another
# one. Sets its state, if any.
dead() {
  _state=
  IFS= read -r _state <"$1/stat" || return 0
  case ${_state##*) } in
  [ZX]*) set -- "$1"/task/*; [ $# -le 1 ] ;;
  *) return 1 ;;
  esac
}
# Lists what is left. Fails unless it finds itself: that nothing is found proves nothing where one
# cannot look. Only for a process of its own, $(left).
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

# How often the kernel has killed something of this container's for lack of memory.
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

# Whatever is left of a command is, or descends from, a child of the first process, to which the
# kernel gives orphans, or one of this shell, to which CLONE_PARENT may; from the latter they go to
# the former. New ones come at the list's end. One that is reaped while the list is read hides the
# next; so those that are known have to be there afterwards, and one that is not is seen itself. In
# the shell that has called `before` its own processes are among the known.
before() {
  ooms
  _starved=$_ooms _old=
  [ -z "$_adopts" ] || read -r _old </proc/1/task/1/children
  # where zombies stay for good there may be so many that a list of them takes too long
  [ "${#_old}" -lt 6000 ] || _adopts=
}
adopted() {
  _new= _own= _list=
  read -r _own </proc/thread-self/children
  read -r _list </proc/1/task/1/children
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
# A program that lowers that limit for itself hides; it cannot raise it again. So what is new and
# has a lower one may be the command's, or another command's beside it, whose supervisor ends it
# soon. In a place for one command alone (_alone) it is the command's.
hides() {
  case $_limit in '' | *[!0-9]*) return 1 ;; esac
  [ "$_limit" -lt "$_tag" ]
}
# What starts its like and ends at once is gone before it is looked at. So what is new is stopped
# for a look, where there was always something that was gone; and what is none of the command's goes
# on, and is known then. No process is made between, as it might not be possible. Only for the shell
# that nobody kills; it takes no longer than the caller waits for it (_patience).
chase() {
  [ "$_adopts" ] || return 0
  read -r _self _x </proc/self/stat
  read -r _until _x </proc/uptime
  _until=$((${_until%.*} + ${_patience:-2})) _round=0
  # what is taken for a known one by its number is another one the next time
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
        kill -9 "$_child" # until it is dead it may have a child that is not listed yet
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
# Ends all that is left of a command, and says whether there was something. Looking alone does not
# end what is many, and starts its like.
clear_up() {
  if sweep 20; then chase; else chase && sweep 300; fi
  _cleared=$?
  [ -z "$_slew" ] || say killed
  return "$_cleared"
}
_adopts= _old= _watcher= _self= _slew=
case $PPID in
0 | 1) [ -e /proc/1/task/1/children ] && [ -e /proc/thread-self/children ] && _adopts=yes ;;
esac

held() {
  _out=$(readlink /proc/$$/fd/1) _err=$(readlink /proc/$$/fd/4)
  for _pid in $(left); do
    for _fd in /proc/"$_pid"/fd/*; do
      case $(readlink "$_fd") in "$_out" | "$_err") return 0 ;; esac
    done
  done
  return 1
}

# A command's stdin. Whoever writes it last holds the pipe until it has said that all of it was
# written, or that it was not. So a command that saw the end of its stdin, and none of these words
# before it ended, saw a wrong one. It cannot close the pipe itself: the shell that waits for it has
# it open, too.
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
# Through the memory of dd, where a pipe would not hold it all, so that a command that does not read
# it cannot keep the end of our own stdin from being seen. The first line is the number of this
# process.
spool() {
  exec 3<&-
  read -r _own _x </proc/self/stat
  echo "$_own"
  hand_over cat
}
