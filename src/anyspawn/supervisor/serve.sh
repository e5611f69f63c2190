# A separate process reads each command's line, and exits with the command, so that no later command
# finds this one's variables and input in any memory. `.` reads in blocks, if the pipe can be
# opened; a named pipe cannot, once its other end is closed. `read` reads one byte at a time.
_blocks=
case $BASH_VERSION$KSH_VERSION$ZSH_VERSION$YASH_VERSION$(readlink /proc/$$/fd/3) in
pipe:*) ! : </proc/self/fd/3 || _blocks=yes ;;
esac
serve() (
  trap '[ "$?" = 0 ] || [ -z "$_nonce" ] || say failed' EXIT
  [ -z "$_blocks" ] || . /proc/self/fd/3
  while IFS= read -r _line <&3; do eval "$_line"; done
  exit 9
)
_served=0
printf '\036anyspawn ready\n' >&4
while [ "$_served" = 0 ]; do
  serve
  _served=$?
  _ran=yes
done
# The watcher also sees the end of stdin. If it were killed in its own sweep, it would leave
# zombies.
if [ "$_served" = 9 ]; then
  trap - EXIT
  exec 8>&-
  wait
else
  sweep 300
fi
