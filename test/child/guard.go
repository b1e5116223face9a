package child

import (
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// Guard clears up behind a program that was killed: what the kernel ends with it
// (Consul, tasks) leaves files, and HAProxy outlives mi-lb on purpose.
//
// It is a shell that waits for the end of its input, which is the program's end. It
// has a session of its own: neither Ctrl-C nor a signal to the program's group
// reaches it.
type Guard struct {
	command *exec.Cmd
	input   io.WriteCloser
}

// guardScript reads "folder PATH" for what is to go and "done" where nothing is.
// Of the folders' processes it ends those of mi-lb and HAProxy, by their command
// lines; mi-lb starts HAProxy again as long as it lives, hence the loop.
const guardScript = `trap '' INT TERM HUP
while read -r verb path; do
	case $verb in
	folder) set -- "$@" "$path" ;;
	done) exit 0 ;;
	esac
done
again=yes
while [ $again = yes ]; do
	again=no
	for process in /proc/[0-9]*; do
		line=$(tr '\0' ' ' 2>/dev/null <"$process/cmdline") || continue
		for folder; do
			case $line in
			*" serve --config $folder/"* | *" -S $folder/"*)
				kill -9 "${process#/proc/}" 2>/dev/null && again=yes ;;
			esac
		done
	done
done
rm -rf "$@"
`

// StartGuard starts a guard, which has nothing to guard yet.
func StartGuard() (*Guard, error) {
	command := exec.Command("/bin/sh", "-c", guardScript, "mi-lb-guard")
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Dir = "/"
	input, err := command.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	return &Guard{command, input}, nil
}

// Folder is one more that the guard answers for.
func (g *Guard) Folder(path string) error {
	if _, err := fmt.Fprintln(g.input, "folder", path); err != nil {
		return fmt.Errorf("tell the guard of %s: %w", path, err)
	}
	return nil
}

// Stop ends the guard when nothing is left to guard.
func (g *Guard) Stop() {
	_, _ = fmt.Fprintln(g.input, "done")
	_ = g.input.Close()
	_ = g.command.Wait()
}
