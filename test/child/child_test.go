package child

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const patience = time.Minute

// TestMain is also the program that the tests kill: it starts a child, says which, and
// stays.
func TestMain(m *testing.M) {
	if os.Getenv("CHILD_TEST_PARENT") != "" {
		p, err := Start(exec.Command("sleep", "600"), syscall.SIGKILL)
		if err != nil {
			panic(err)
		}
		guard, err := StartGuard()
		if err != nil {
			panic(err)
		}
		if err := guard.Folder(os.Getenv("CHILD_TEST_PARENT")); err != nil {
			panic(err)
		}
		fmt.Println(p.PID())
		select {}
	}
	os.Exit(m.Run())
}

func isThere(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for begun := time.Now(); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatalf("not seen: %s", what)
		}
	}
}

func TestChildrenEndWithTheProgramAndTheGuardRemovesWhatIsLeft(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "left")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), "CHILD_TEST_PARENT="+folder)
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := Start(parent, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	defer p.End(syscall.SIGKILL, patience)
	line, err := bufio.NewReader(out).ReadString('\n')
	var pid int
	if _, scanned := fmt.Sscan(line, &pid); err != nil || scanned != nil || !isThere(pid) {
		t.Fatalf("%q %v", line, err)
	}
	p.End(syscall.SIGKILL, patience)
	eventually(t, "the child ends", func() bool { return !isThere(pid) })
	eventually(t, "the folder is removed", func() bool { _, err := os.Stat(folder); return os.IsNotExist(err) })
}

func TestAGuardThatIsToldThatAllIsDoneLeavesFolders(t *testing.T) {
	folder := t.TempDir()
	guard, err := StartGuard()
	if err != nil {
		t.Fatal(err)
	}
	if err := guard.Folder(folder); err != nil {
		t.Fatal(err)
	}
	guard.Stop()
	if _, err := os.Stat(folder); err != nil {
		t.Error(err)
	}
}

func TestAProcessSaysHowItEnded(t *testing.T) {
	said := &Tail{}
	command := exec.Command("sh", "-c", `trap '' TERM; echo ready; while :; do sleep 0.01; done`)
	command.Stdout = said
	p, err := Start(command, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is ready", func() bool { return said.String() == "ready\n" })
	if !p.IsRunning() || p.Err() != nil || p.Used() != 0 {
		t.Error("it has not ended yet")
	}
	p.End(syscall.SIGTERM, time.Millisecond) // which it does not heed
	<-p.Ended()
	if p.IsRunning() || p.Err() == nil {
		t.Errorf("it ended with %v", p.Err())
	}
	if _, err := Start(exec.Command("/no/such/program"), syscall.SIGKILL); err == nil {
		t.Error("a program that does not exist was started")
	}
}

func TestATailIsTheLastOfWhatWasWritten(t *testing.T) {
	var tail Tail
	for i := range 5000 {
		fmt.Fprintf(&tail, "line %d\n", i)
	}
	if s := tail.String(); len(s) != tailLength || !strings.HasSuffix(s, "line 4999\n") {
		t.Errorf("%d bytes, that end with %q", len(s), s[len(s)-20:])
	}
}
