# A process of its own reads each command's line, and ends with the command: what one was given
# stands in no memory in which a later one could read it. A script is read in blocks, where its pipe
# can be opened; one that has a name cannot, once nobody has its other end. A builtin `read` takes a
# byte at a time.
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
# The watcher sees that end, too: what it has begun then would be left, a zombie, if it were killed.
if [ "$_served" = 9 ]; then
  trap - EXIT
  exec 8>&-
  wait
else
  sweep 300
fi
