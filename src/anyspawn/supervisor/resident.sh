# Looks after one command after the other inside a container. A shell reads this from its stdin, and then a line for each
# command, which calls `run`. While a command runs the lines are another process's, a word each: t, send it SIGTERM; k, kill it;
# x, the caller has seen that it is gone. When stdin ends the whole tree is killed.
exec 3<&0 4>&2 2>/dev/null
# A word that was too late for its command, or too early, is none of the script.
t() { :; }
k() { :; }
watch() {
  exec >/dev/null 4>&- 8>&- 9<&-
  while read -r _ <&7; do
    while read -r word <&3 || { sweep; exit; }; do
      case $word in
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
  if [ "$piped" ]; then
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
piped=$(here && [ -p /proc/self/fd/5 ] && echo yes)
pipe
exec 7<&5 8>&6
pipe
exec 9<&5 5<&-
watch &
exec 6>&- 7<&-

start='
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
exec "$@"
exit'
work() (
  exec 2>&4 3<&- 4>&- 5<&- 6>&- 8>&- 9<&-
  { ulimit -x "$tag" || ulimit -w "$tag" || printf '%s%s untagged%s' "$rs" "$nonce" "$rs" >&2; } 2>/dev/null
  ANYSPAWN_ID=$id ANYSPAWN_NONCE=$rs$nonce ANYSPAWN_COUNT=0
  trap 'printf "%s unstarted $?\036" "$ANYSPAWN_NONCE" >&2' EXIT
  cwd=$1
  shift
  while [ -n "$1" ]; do
    ANYSPAWN_COUNT=$((ANYSPAWN_COUNT + 1))
    eval "ANYSPAWN_ENV_$ANYSPAWN_COUNT=\$1; export ANYSPAWN_ENV_$ANYSPAWN_COUNT"
    shift
  done
  shift
  export ANYSPAWN_ID ANYSPAWN_NONCE ANYSPAWN_COUNT
  exec $session sh -c "$start" anyspawn "$cwd" "$@"
)
# What bash cannot execute as its arguments are too long ends without its trap: then that cannot be executed without a program either.
attempt() {
  work "$@"
  status=$?
  if [ "$BASH_VERSION" ] && [ "$status" = 126 ] && ! (start=: && work "$@") </dev/null >/dev/null 4>&1; then say "unstarted 126"; fi
}
# Whether nothing is left of the command, by one look. What it started has higher numbers than what was there before, unless it
# ran for so long that they may have begun anew; and what another resident has started is a child of that one, which what
# the command leaves behind cannot become.
alone() {
  read -r _ _ _ _ last </proc/loadavg || return 1
  read -r now _ </proc/uptime || return 1
  if [ "$((${now%.*}${now#*.} - ${began%.*}${began#*.}))" -gt "$soon" ] || [ "$last" -lt "$first" ]; then first=0; fi
  [ "$last" -ne "$((first + 1))" ] || return 0
  set --
  for process in /proc/[0-9]*; do
    [ "${process#/proc/}" -le "$first" ] || set -- "$@" "$process"
  done
  others=
  for other in $residents; do
    if [ "$other" -le "$first" ] && [ "$other" != "$$" ]; then
      children=
      read -r children </proc/"$other"/task/"$other"/children
      others="$others $children "
    fi
  done
  doubtful=
  for process; do
    case $others in *" ${process#/proc/} "*) ;; *) [ ! -e "$process" ] || doubtful="$doubtful $process/limits $process/environ" ;; esac
  done
  [ "$doubtful" ] || return 0
  [ -z "$(grep -l -e "^Max file locks  *$tag " -e "ANYSPAWN_ID=$id" $doubtful)" ]
}
# Arguments: the word of its frames; its stdin, as a printf format after =, or as a number of bytes, which follow when they are
# asked for; the residents beside this one; its working directory, or nothing; its variables, and nothing; its own arguments.
run() {
  nonce=$1 input=$2 residents=$3
  shift 3
  read -r _ _ _ _ first </proc/loadavg
  read -r began _ </proc/uptime
  if [ -z "$ran" ]; then
    printf '%s%s start%s' "$rs" "$nonce" "$rs"
    say "resident $$"
    ran=yes
  fi
  say start
  case $input in
  =)
    echo >&8
    attempt "$@" </dev/null
    judge
    ;;
  =*)
    echo >&8
    pipe
    printf "${input#=}" >&6
    exec 6>&-
    attempt "$@" <&5
    judge
    ;;
  *)
    say send
    if { head -c "$input" <&3 || lost "$?"; echo >&8; say took; } | { size=$input; spool; } | {
      attempt "$@"
      judge
      printf '%s' "$told" >&4
      [ "$verdict" = clean ]
    }; then verdict=clean; else verdict=unclean; fi
    told=
    ;;
  esac
  printf '%s%s%s %s%s' "$told" "$rs" "$nonce" "$verdict" "$rs" >&4
  read -r _ <&9 || exit
}
# Ends what is left of the command. Sets what there is to tell of its end yet, and the verdict.
judge() {
  verdict=clean
  told="$rs$nonce exit $status$rs"
  if [ -z "$able" ] || ! alone; then
    printf '%s' "$told" >&4
    told=
    round=0
    while held && [ "$round" -lt 3000 ]; do
      [ "$round" -gt 0 ] || say held
      sleep 0.02 || sleep 1 || round=3000
      round=$((round + 1))
    done
    sweep && [ -n "$(probe)" ] || verdict=unclean
  fi
  printf '%s%s end%s' "$rs" "$nonce" "$rs"
}
able=
if command -v grep >/dev/null && most=$(cat /proc/sys/kernel/pid_max); then able=$(probe); fi
# Hundredths of a second in which no machine makes so many processes: it would be more than 300 in a millisecond.
soon=$((most / 3300))
