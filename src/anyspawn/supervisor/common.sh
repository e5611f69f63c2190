# What every supervisor knows: how to say something, and how to find and end all that a command started. Names begin with _, as
# a variable that the container exports, and a program of it is to see, would change with one of the same name here.
_rs=$(printf '\036')
say() { printf '%s%s %s%s' "$_rs" "$_nonce" "$1" "$_rs" >&4; }
_session=$(command -v setsid)

# The tag is a limit that nothing enforces, and that every descendant inherits whatever it does to its environment or
# session; what keeps its environment is known by that, too. Zombies do not count: without an init they stay.
tagged() {
  while read -r _a _b _c _limit _rest; do
    case "$_a $_b $_c" in "Max file locks") [ "$_limit" = "$_tag" ]; return ;; esac
  done <"$1"
  return 1
}
candidates() {
  if command -v grep >/dev/null; then
    grep -l "^Max file locks  *$_tag " /proc/[0-9]*/limits
    grep -l "ANYSPAWN_ID=$_id" /proc/[0-9]*/environ
  else
    for _file in /proc/[0-9]*/limits; do
      if tagged "$_file"; then echo "$_file"; fi
    done
  fi
}
left() {
  _seen=' '
  for _file in $(candidates); do
    _process=${_file%/*}
    case $_seen in *" $_process "*) continue ;; esac
    _seen="$_seen$_process "
    IFS= read -r _state <"$_process/stat" || continue
    case ${_state##*) } in [ZX]*) ;; *) printf '%s ' "${_process#/proc/}" ;; esac
  done
}
# Whether looking finds what there is to find: a process that was tagged for that.
probe() (
  { ulimit -x "$_tag" || ulimit -w "$_tag"; } >/dev/null
  left
)
sweep() {
  _round=0
  while _pids=$(left) && [ -n "$_pids" ]; do
    [ "$_round" -lt 300 ] || return 1
    kill -9 $_pids
    _round=$((_round + 1))
  done
}
held() {
  _out=$(readlink /proc/$$/fd/1) _err=$(readlink /proc/$$/fd/4)
  for _pid in $(left); do
    for _fd in /proc/"$_pid"/fd/*; do
      case $(readlink "$_fd") in "$_out" | "$_err") return 0 ;; esac
    done
  done
  return 1
}

spool() {
  exec 3<&-
  if dd iflag=fullblock count=0 </dev/null; then dd bs="$((_size + 16))" iflag=fullblock; else cat || cat >/dev/null; fi || lost "$?"
}
lost() {
  case $1 in 126 | 127 | 137) say lost ;; esac
}
