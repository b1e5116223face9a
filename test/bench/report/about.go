package report

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mi-lb/mi-lb/test/bench/subject"
	"github.com/mi-lb/mi-lb/test/consul"
)

// About is what figures were measured on.
type About struct {
	Date    string `json:"date"`
	Command string `json:"command"`
	Machine string `json:"machine"`
	Commit  string `json:"commit"`
	// Versions by program.
	Versions map[string]string `json:"versions"`
}

// NewAbout asks the machine and the programs.
func NewAbout(ctx context.Context, b subject.Binaries, consulTemplate string) About {
	arguments := append([]string{"go run ./test/bench"}, os.Args[1:]...)
	a := About{
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Command: strings.Join(arguments, " "),
		Machine: machine(), Commit: first(ctx, "git", "describe", "--always", "--dirty"),
		Versions: map[string]string{"HAProxy": word(first(ctx, b.HAProxy, "-v"), 2), "Go": runtime.Version()},
	}
	if path, err := consul.Binary(ctx); err == nil {
		a.Versions["Consul"] = word(first(ctx, path, "version"), 1)
	}
	if consulTemplate != "" {
		a.Versions["consul-template"] = consulTemplate
	}
	return a
}

func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	memory, kernel := "", ""
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		memory = fmt.Sprintf(", %d GB", (info.Totalram*uint64(info.Unit)+1<<29)>>30)
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		kernel = ", Linux " + unix.ByteSliceToString(name.Release[:])
	}
	return fmt.Sprintf("%d × %s%s%s", runtime.NumCPU(), model, memory, kernel)
}

// first line that a command prints.
func first(ctx context.Context, path string, arguments ...string) string {
	out, err := exec.CommandContext(ctx, path, arguments...).Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}

func word(line string, n int) string {
	if words := strings.Fields(line); n < len(words) {
		return words[n]
	}
	return line
}
