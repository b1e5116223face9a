package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/mi-lb/mi-lb/provision/redact"
)

// isTerminal says whether something that is read or written is a terminal.
func isTerminal(x any) bool {
	file, ok := x.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// isTerminal says whether somebody can be asked.
func (s *session) isTerminal() bool { return isTerminal(s.stdin) && isTerminal(s.stderr) }

// ask asks for a line.
func (s *session) ask(question string) (string, error) {
	fmt.Fprint(s.stderr, question)
	line, err := bufio.NewReader(s.stdin).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	return strings.TrimSpace(line), nil
}

// askSecret asks for a line that is not shown.
func (s *session) askSecret(question string) (redact.Text, error) {
	file, ok := s.stdin.(*os.File)
	if !ok {
		return redact.Text{}, errors.New("nobody can be asked for a secret here")
	}
	fmt.Fprint(s.stderr, question)
	line, err := term.ReadPassword(int(file.Fd()))
	fmt.Fprintln(s.stderr)
	if err != nil {
		return redact.Text{}, fmt.Errorf("read the answer: %w", err)
	}
	secret := redact.New(string(line))
	s.mask.Add(secret)
	return secret, nil
}
