# A process of its own reads each command's line, and ends with the command: what one was given
# stands in no memory in which a later one could read it. A script is read in blocks, where its pipe
# can be opened; a builtin `read` takes a byte at a time.
_blocks=
[ "$BASH_VERSION$KSH_VERSION$ZSH_VERSION$YASH_VERSION" ] || ! : </proc/self/fd/3 || _blocks=yes
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
