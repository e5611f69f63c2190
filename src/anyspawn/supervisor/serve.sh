# A process of its own reads each command's line, and exits with the command: no later command finds
# what this one was given in anyone's memory. `.` reads in blocks, where the pipe can be opened; a
# named one cannot, once nobody has its other end. `read` takes a byte at a time.
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
# The watcher sees the end of stdin, too. Killed in its sweep, it would leave zombies.
if [ "$_served" = 9 ]; then
  trap - EXIT
  exec 8>&-
  wait
else
  sweep 300
fi
