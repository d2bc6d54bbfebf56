// Command serveload starts a server and puts it under the load and abuse that
// it must stand, from a process of its own and over loopback alone. Each check
// prints what it measured; a check that fails makes the exit code 1.
//
//	go build -o promptgen ./cmd/promptgen
//	go run ./scripts/serveload -bin ./promptgen                 # every short check
//	go run ./scripts/serveload -bin ./promptgen -for 30m mixed  # half an hour of mixed load
//
// Without -model it makes a GPT-2 small of random weights (n_ctx 1024, 21128
// tokens), whose speed is that of a trained one.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"promptgen/model"
	"promptgen/model/checkpoint"
	"promptgen/tokenizer"
)

// settings are the flags.
type settings struct {
	bin, model, dtype string
	mixedFor          time.Duration
}

// check is one thing that the server must stand.
type check struct {
	name  string
	flags []string // of the server
	run   func(ctx context.Context, s *server) (string, error)
}

func checks(o settings) []check {
	return []check{
		{"original", nil, original},
		{"first", nil, firstToken},
		{"together", nil, together},
		{"abuse", nil, abuse},
		{"slow", nil, slowClients},
		{"leave", []string{"--max-queue", "600"}, leave},
		{"flood", nil, flood},
		{"drain", []string{"--drain", "60s"}, drainWhole},
		{"cut", []string{"--drain", "1s"}, drainCut},
		{"mixed", []string{"--max-queue", "64"}, func(ctx context.Context, s *server) (string, error) { return mixed(ctx, s, o.mixedFor) }},
	}
}

func main() {
	var o settings
	flag.StringVar(&o.bin, "bin", "./promptgen", "the program")
	flag.StringVar(&o.model, "model", "", "model folder (default: GPT-2 small of random weights)")
	flag.StringVar(&o.dtype, "dtype", "bf16", "dtype to serve")
	flag.DurationVar(&o.mixedFor, "for", 30*time.Second, "how long the mixed load lasts")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "serveload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o settings, names []string) error {
	dir, err := os.MkdirTemp("", "serveload")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all := checks(o)
	for _, name := range names {
		if !slices.ContainsFunc(all, func(c check) bool { return c.name == name }) {
			return fmt.Errorf("there is no check %q", name)
		}
	}
	if o.model == "" {
		o.model = filepath.Join(dir, "small")
		if err := randomSmall(ctx, o.model); err != nil {
			return err
		}
	}
	failed := 0
	for _, c := range all {
		if len(names) > 0 && !slices.Contains(names, c.name) {
			continue
		}
		measured, err := runCheck(ctx, o, c, filepath.Join(dir, c.name+".log"))
		verdict := "ok  "
		if err != nil {
			verdict, failed = "FAIL", failed+1
			measured = strings.TrimSpace(measured + " " + err.Error())
		}
		fmt.Printf("%s %-9s %s\n", verdict, c.name, measured)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d checks failed", failed)
	}
	return nil
}

// runCheck gives the check a fresh server.
func runCheck(ctx context.Context, o settings, c check, log string) (string, error) {
	s, err := startServer(ctx, o, log, c.flags)
	if err != nil {
		return "", err
	}
	measured, err := c.run(ctx, s)
	return measured, errors.Join(err, s.stop())
}

// server is the process under load.
type server struct {
	url    string // http://127.0.0.1:port
	host   string
	cmd    *exec.Cmd
	exited chan error
	closed bool
}

var listening = regexp.MustCompile(`address=(127\.0\.0\.1:\d+)`)

// startServer starts the program and waits until it is ready.
func startServer(ctx context.Context, o settings, logFile string, flags []string) (*server, error) {
	args := append([]string{"serve", "--model", o.model, "--dtype", o.dtype, "--port", "0"}, flags...)
	s := &server{cmd: exec.Command(o.bin, args...), exited: make(chan error, 1)}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(logFile)
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	address := make(chan string, 1)
	go func() {
		defer log.Close()
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				select {
				case address <- m[1]:
				default:
				}
			}
			fmt.Fprintln(log, lines.Text())
		}
		s.exited <- s.cmd.Wait()
	}()
	select {
	case s.host = <-address:
		s.url = "http://" + s.host
	case err := <-s.exited:
		text, _ := os.ReadFile(logFile)
		return nil, fmt.Errorf("the server did not start: %v\n%s", err, text)
	case <-time.After(time.Minute):
		return nil, errors.Join(errors.New("the server did not say where it listens"), s.cmd.Process.Kill())
	}
	return s, s.eventually(ctx, "the model", time.Minute, func() bool {
		r, err := get(ctx, s.url+"/ready")
		return err == nil && r.status == 200
	})
}

// stop ends the server as an operator would.
func (s *server) stop() error {
	if s.closed {
		return nil
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.exited:
		s.closed = true
		if err != nil {
			return fmt.Errorf("the server ended with %w", err)
		}
		return nil
	case <-time.After(90 * time.Second):
		return errors.Join(errors.New("the server does not end"), s.cmd.Process.Kill())
	}
}

// eventually waits for a condition.
func (s *server) eventually(ctx context.Context, what string, limit time.Duration, cond func() bool) error {
	for end := time.Now().Add(limit); !cond(); {
		if time.Now().After(end) {
			return fmt.Errorf("waited in vain for %s", what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// randomSmall writes a GPT-2 small of random weights over the common
// characters.
func randomSmall(ctx context.Context, dir string) error {
	const size = 21128
	tokens := []string{"[SEP]", "[CLS]", "[MASK]", "[PAD]", "[UNK]"}
	for r := rune(0x4e00); r <= 0x9fa5; r++ {
		tokens = append(tokens, string(r))
	}
	for r := rune('!'); len(tokens) < size; r++ {
		tokens = append(tokens, "##"+string(r))
	}
	v, err := tokenizer.NewVocab(tokens)
	if err != nil {
		return err
	}
	p := model.NewParams(model.Config{
		VocabSize: size, NPositions: 1024, NCtx: 1024, NEmbd: 768, NHead: 12, NLayer: 12, LayerNormEpsilon: 1e-5, InitializerRange: 0.02,
	}, false)
	p.Init(1)
	return checkpoint.Save(ctx, dir, checkpoint.New(p, v, tokenizer.LevelChar, true))
}
