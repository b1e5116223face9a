package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// kept is how many messages are remembered for telling why something failed.
const kept = 500

// output carries what HAProxy prints to the log. It is a named pipe that HAProxy
// itself holds open in both directions: when nobody reads, because the program
// that started it is gone, writing neither fails nor blocks, and whoever opens the
// pipe next reads what it holds (64 kB).
type output struct {
	file *os.File
	log  *slog.Logger

	mu       sync.Mutex
	first    int // the number of messages[0] among all that were read
	messages []Message
	flushes  map[string]chan struct{}
	next     int
}

// openOutput opens, and makes if need be, the pipe, and begins to read it.
func openOutput(path string, log *slog.Logger) (*output, error) {
	if err := unix.Mkfifo(path, 0o600); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("make the pipe %s for HAProxy's messages: %w", path, err)
	}
	file, err := openPipe(path)
	if err != nil {
		return nil, err
	}
	o := &output{file: file, log: log, flushes: map[string]chan struct{}{}}
	go o.read()
	return o, nil
}

func openPipe(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the pipe %s for HAProxy's messages: %w", path, err)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFIFO {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%s is in the way: it should be a pipe for HAProxy's messages; remove it", path)
	}
	// A descriptor that is non-blocking already stays so when exec hands it on.
	return os.NewFile(uintptr(fd), path), nil
}

func (o *output) Close() error { return o.file.Close() }

func (o *output) read() {
	lines := bufio.NewReaderSize(o.file, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
		if text := strings.TrimRight(string(line), "\r\n"); text != "" {
			o.take(text)
		}
	}
}

const flushMark = "mi-lb flush "

func (o *output) take(line string) {
	o.mu.Lock()
	if token, ok := strings.CutPrefix(line, flushMark); ok {
		if done, ok := o.flushes[token]; ok {
			close(done)
			delete(o.flushes, token)
			o.mu.Unlock()
			return
		}
	}
	m := ParseMessage(line)
	o.messages = append(o.messages, m)
	if len(o.messages) > 2*kept {
		drop := len(o.messages) - kept
		o.messages = append([]Message(nil), o.messages[drop:]...)
		o.first += drop
	}
	o.mu.Unlock()
	o.log.Log(context.Background(), m.Level, "haproxy: "+m.Text, "pid", m.PID)
}

// Mark is a point in what was read, for [output.Since].
func (o *output) Mark() int {
	if o == nil {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.first + len(o.messages)
}

// Since are the messages from the mark to all that HAProxy has written by now.
func (o *output) Since(ctx context.Context, mark int) []Message {
	if o == nil {
		return nil
	}
	o.flush(ctx)
	o.mu.Lock()
	defer o.mu.Unlock()
	from := min(max(mark-o.first, 0), len(o.messages))
	return append([]Message(nil), o.messages[from:]...)
}

// flush returns when everything written to the pipe before was read: a line of our
// own went through it.
func (o *output) flush(ctx context.Context) {
	o.mu.Lock()
	o.next++
	token := strconv.Itoa(os.Getpid()) + "." + strconv.Itoa(o.next)
	done := make(chan struct{})
	o.flushes[token] = done
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := o.file.WriteString("\n" + flushMark + token + "\n"); err == nil {
		select {
		case <-done:
			return
		case <-ctx.Done():
		}
	}
	o.mu.Lock()
	delete(o.flushes, token)
	o.mu.Unlock()
}
