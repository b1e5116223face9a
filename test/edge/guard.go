package edge

import (
	"fmt"
	"io"
	"os/exec"
	"syscall"
)

// guard clears up behind a test that was killed or has panicked: HAProxy outlives
// mi-lb on purpose.
//
// It is a shell that waits for the end of its input, which is the test's end, and has
// a session of its own, so that Ctrl-C does not reach it.
type guard struct {
	command *exec.Cmd
	input   io.WriteCloser
}

// guardScript ends, unless it is told "done", the processes whose command lines name
// the folder; mi-lb starts HAProxy again as long as it lives, hence the loop.
const guardScript = `trap '' INT TERM HUP
read -r word && [ "$word" = done ] && exit 0
again=yes
while [ $again = yes ]; do
	again=no
	for process in /proc/[0-9]*; do
		line=$(tr '\0' ' ' 2>/dev/null <"$process/cmdline") || continue
		case $line in
		*" serve --config $1/"* | *" -S $1/"*)
			kill -9 "${process#/proc/}" 2>/dev/null && again=yes ;;
		esac
	done
done
rm -rf "$1"
`

func startGuard(dir string) (*guard, error) {
	command := exec.Command("/bin/sh", "-c", guardScript, "edge-guard", dir)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Dir = "/"
	input, err := command.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the edge's guard: %w", err)
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the edge's guard: %w", err)
	}
	return &guard{command, input}, nil
}

// stop ends the guard when nothing is left to guard.
func (g *guard) stop() {
	_, _ = fmt.Fprintln(g.input, "done")
	_ = g.input.Close()
	_ = g.command.Wait()
}
