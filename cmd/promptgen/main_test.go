package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"promptgen/configs"
	"promptgen/internal/fault"
)

// outcome is what a run of the program leaves.
type outcome struct {
	code     int
	out, err string
}

// shell runs the program in-process, in a folder of its own, with an
// environment of its own.
type shell struct {
	t       *testing.T
	environ []string
	stdin   string
}

// newShell changes into a new folder for the length of the test.
func newShell(t *testing.T) *shell {
	t.Helper()
	t.Chdir(t.TempDir())
	return &shell{t: t}
}

func (s *shell) run(args ...string) outcome {
	s.t.Helper()
	var out, err bytes.Buffer
	code := run(context.Background(), streams{strings.NewReader(s.stdin), &out, &err}, args, s.environ)
	return outcome{code, out.String(), err.String()}
}

// ok runs what must succeed.
func (s *shell) ok(args ...string) outcome {
	s.t.Helper()
	o := s.run(args...)
	if o.code != fault.CodeDone {
		s.t.Fatalf("promptgen %s: exit code %d: %s", strings.Join(args, " "), o.code, o.err)
	}
	return o
}

// fails runs what must end with code and one line that has all the parts.
func (s *shell) fails(code int, parts []string, args ...string) {
	s.t.Helper()
	o := s.run(append([]string{"--quiet"}, args...)...)
	s.checkFailure(o, code, parts, args)
}

func (s *shell) checkFailure(o outcome, code int, parts, args []string) {
	s.t.Helper()
	line := strings.Join(args, " ")
	if o.code != code {
		s.t.Errorf("%s: exit code %d, want %d: %s", line, o.code, code, o.err)
	}
	if o.out != "" {
		s.t.Errorf("%s: standard output has %q", line, o.out)
	}
	if strings.Count(o.err, "\n") != 1 || !strings.HasPrefix(o.err, "promptgen: ") {
		s.t.Errorf("%s: not one line: %q", line, o.err)
	}
	for _, p := range parts {
		if !strings.Contains(o.err, p) {
			s.t.Errorf("%s: no %q in %q", line, p, o.err)
		}
	}
}

// write makes a file.
func (s *shell) write(path, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		s.t.Fatal(err)
	}
}

// absent checks that nothing was left at the paths.
func (s *shell) absent(paths ...string) {
	s.t.Helper()
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			s.t.Errorf("%s was left behind", p)
		}
	}
}

// A mistyped command, flag or value must be answered with code 2, in one line
// that names what was probably meant.
func TestWrongUsage(t *testing.T) {
	s := newShell(t)
	for _, c := range []struct {
		line  string
		parts []string
	}{
		{"trian", []string{`"trian"`, `"train"`}},
		{"train --epoch 3", []string{"--epoch", "--epochs"}},
		{"train --batchsize=3 --lr x", []string{"--batch-size", "--lr must be a number", `"x"`}},
		{"train --epochs many", []string{"--epochs must be a whole number"}},
		{"train --epochs", []string{"--epochs needs a value"}},
		{"train --quiet=maybe", []string{"true or false"}},
		{"train --lr NaN", []string{"--lr must be a number"}},
		{"train tokens", []string{`unexpected argument "tokens"`}},
		{"vocab --corpus a.txt b.txt", []string{`unexpected argument "b.txt"`, "repeat"}},
		{"vocab", []string{"--corpus is missing"}},
		{"plan --max-memory 4", []string{"--max-memory must be a size like 2GiB", `"4"`}}, // a unit is missing: not four bytes
		{"vocab --corpus a.txt --level letters --compat bok --size 2", []string{"--level", "--compat", "--size"}},
		{"train --epochs 0 --device cuda --dtype int3", []string{"--epochs", "--device cuda: only the cpu", "--dtype"}},
		{"eval", []string{"either --data or --corpus"}},
		{"generate --temperature -1 --top-p 3 --prompt x", []string{"temperature", "top_p"}},
		{"generate --stream --json --prompt x", []string{"--stream"}},
		{"inspect", []string{"name one file"}},
		{"--json", []string{"no command"}},
		{"--versoin", []string{"unknown flag --versoin", "--version?"}},
		{"--epochs 3", []string{"no command", "--epochs comes after the command", "train"}},
		{"--epoch 3", []string{"unknown flag --epoch", "--epochs?"}},
		{"--epoch 3 train", []string{"train: unknown flag --epoch", "--epochs?"}},
		{"train --num_pieces 3 --min_length=3", []string{"unknown flag --num_pieces: it belongs to tokenize", "unknown flag --min_length: it belongs to tokenize"}},
		{"help trian", []string{`"train"`}},
		{"xyzzy", []string{`no command "xyzzy"; promptgen help`}},
		{"train --fp16 --dtype fp32 --save-every -5m", []string{"--fp16 means --dtype bf16", `"-5m"`}},
		{"tokenize --corpus a.txt --compat book --level char", []string{"--compat book", "--level"}},
		{"tokenize --text x --level bit --compat bok", []string{"--level must be word, char or bert", `"bok"`}},
		{"tokenize --text x --compat book --user-dict w.txt", []string{"--compat book", "--user-dict"}},
		{"tokenize --text x --num-pieces 5 --val-fraction 7 --out t --corpus c.txt", []string{"--num-pieces", "--val-fraction", "--out", "--corpus", "beside --text"}},
		{"bench infer --steps 3 --batch-size 2 --dropout 0.1 --max-memory 1GiB", []string{"--steps", "--batch-size", "--dropout", "--max-memory is for bench train"}},
		{"bench gemm --model m --optimizer-state bf16", []string{"--model is for bench infer", "--optimizer-state"}},
		{"bench infer --vocab v.txt", []string{"--vocab is the vocabulary of --model"}},
		{"bench infer --model m --config test", []string{"either --config or --model"}},
		{"bench infer --model m --vocab-size 9", []string{"--vocab-size is for --config"}},
		{"bench infer --vocab-size 0 --dtype int3 --config absent.json", []string{"--vocab-size", "--dtype", "absent.json"}},
		{"quickstart -", []string{"a pipe does not allow"}},
		{"serve --cors-origin foo", []string{`cors-origin "foo"`}},
		{"serve --timeout 0s", []string{"--timeout must be above 0"}},
		// What a shell makes of variables that are not set must not open a service.
		{"serve --api-key-file= --tls-cert= --tls-key= --host=", []string{"--api-key-file is empty", "--tls-cert is empty", "--tls-key is empty", "--host is empty"}},
		{"quickstart --dir=", []string{"--dir is empty"}},
		{"train --config= --init-from= --data=", []string{"--config is empty", "--init-from is empty", "--data is empty"}},
		{"generate --model= --prompts-file=", []string{"--model is empty", "--prompts-file is empty"}},
		{"vocab --corpus=", []string{"--corpus is empty"}},
		// So many threads would take all memory, or overflow.
		{"version --threads 2147483648", []string{"--threads must be between 0", "4096"}},
		{"plan --threads 9223372036854775807", []string{"--threads must be between 0"}},
		{"doctor --threads=-1", []string{"--threads must be between 0"}},
		{"generate --json --jsonl --prompt x", []string{"--json", "--jsonl", "leave one out"}},
		{"generate --prompt x --prompt \xb8\xdf", []string{"--prompt number 2", "UTF-8"}},
		{"inspect nowhere", []string{"nowhere: no such file or folder"}},
		// What mpirun would say a dozen lines about.
		{"launch --np 2 -- train --epoch 3", []string{"train: unknown flag --epoch"}},
		{"launch --np 2 -- train --config test --stride 999", []string{"stride (999)"}},
		{"launch --np 2 -- train --config absent.json", []string{"config absent.json"}},
	} {
		s.fails(fault.CodeUsage, c.parts, strings.Fields(c.line)...)
	}
}

// One wrong value is one fault: nothing is said of flags that were not given.
func TestOneFaultOfOneFlag(t *testing.T) {
	s := newShell(t)
	for _, line := range []string{
		"train --config test --dropout 2", "bench train --dropout 2", "train --config test --init-from m --lora-rank -1", "plan --lora-rank 1000000",
	} {
		o := s.run(strings.Fields("--quiet " + line)...)
		s.checkFailure(o, fault.CodeUsage, nil, []string{line})
		if strings.Contains(o.err, ";") {
			t.Errorf("%s: %s", line, o.err)
		}
	}
}

// Flags may stand anywhere, also before the command and with values that look
// like flags; - and _ are the same; an alias may stand beside its flag.
func TestFlagsAnywhere(t *testing.T) {
	a := newApp(streams{}, []string{"PROMPTGEN_EPOCHS=7", "PROMPTGEN_LR=0.5", "PROMPTGEN_JSON="})
	got, err := a.canonical(strings.Fields("--batch_size 010 train --lr -1 -model_config=test --epochs 2 --log_step 3 --log-every 4 --quiet"))
	if err != nil {
		t.Fatal(err)
	}
	want := "train --batch-size=10 --lr=-1 --config=test --epochs=2 --log-every=3 --log-every=4 --quiet=true --"
	if line := strings.Join(got, " "); line != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}
	got, err = a.canonical(strings.Fields("quickstart a.txt --dir d b.txt -- --c.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if line := strings.Join(got, " "); line != "quickstart --dir=d -- a.txt b.txt --c.txt" {
		t.Errorf("got %s", line)
	}
	got, _ = a.canonical([]string{"train"})
	if line := strings.Join(got, " "); line != "train --epochs=7 --lr=0.5 --" {
		t.Errorf("environment: %s", line)
	}
}

// Every option of the original scripts must work under its own name.
func TestOriginalsOptions(t *testing.T) {
	a := newApp(streams{}, nil)
	for line, want := range map[string]string{
		"vocab --raw_data_path a --vocab_file b --vocab_size 9":             "vocab --corpus=a --out=b --size=9 --",
		"vocab --vocab_filename b":                                          "vocab --out=b --",
		"tokenize --vocab_filename v --tokenized_data_path t":               "tokenize --vocab=v --out=t --",
		"tokenize --compat book --num_pieces 3 --min_length 4":              "tokenize --compat=book --num-pieces=3 --min-length=4 --",
		"train --tokenized_data_path t --model_config c --output_dir o":     "train --data=t --config=c --out=o --",
		"train --gradient_accumulation 2 --max_grad_norm 3 --log_step 4":    "train --grad-accum=2 --max-grad-norm=3 --log-every=4 --",
		"train --warmup_steps 5 --stride 6 --lr 7 --epochs 8":               "train --warmup-steps=5 --stride=6 --lr=7 --epochs=8 --",
		"train --fp16 --fp16_opt_level O1 --writer_dir w --device cpu":      "train --fp16=true --fp16_opt_level=O1 --writer_dir=w --device=cpu --",
		"train --pretrained_model p --vocab_file v --batch_size 9":          "train --init-from=p --vocab=v --batch-size=9 --",
		"serve --port 5005 --device cpu":                                    "serve --port=5005 --device=cpu --",
		"generate --device cpu --prompt 高血压，要注意 --prompt -1 --vocab_file v": "generate --device=cpu --prompt=高血压，要注意 --prompt=-1 --vocab=v --",
	} {
		got, err := a.canonical(strings.Fields(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
		} else if strings.Join(got, " ") != want {
			t.Errorf("%s:\ngot  %s\nwant %s", line, strings.Join(got, " "), want)
		}
	}
}

// What a config's error calls a flag must be one of train.
func TestConfigsKnowTheFlags(t *testing.T) {
	train, err := newApp(streams{}, nil).command("train")
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range configs.TrainFlags {
		if lookupFlag(train, flag) == nil {
			t.Errorf("train has no --%s", flag)
		}
	}
}

// A variable stands in for a flag; one that is not known is a warning, since
// Kubernetes sets some; its PROMPTGEN_PORT is no port.
func TestEnvironment(t *testing.T) {
	s := newShell(t)
	s.environ = []string{"PROMPTGEN_EPOCS=3", "PROMPTGEN_PORT=tcp://10.0.0.1:5005", "PROMPTGEN_ISA=go", "PROMPTGEN_BATCH_SIZE=4", "HOME=/"}
	o := s.ok("version")
	for _, want := range []string{"PROMPTGEN_EPOCS is not known", "PROMPTGEN_EPOCHS?", "PROMPTGEN_PORT=tcp://"} {
		if !strings.Contains(o.err, want) {
			t.Errorf("no %q in %s", want, o.err)
		}
	}
	if n := strings.Count(o.err, "\n"); n != 2 {
		t.Errorf("%d warnings: %s", n, o.err)
	}
	if o := s.ok("version", "--quiet"); o.err != "" {
		t.Errorf("--quiet: %s", o.err)
	}
	s.environ = []string{"PROMPTGEN_batch_size=4", "PROMPTGEN_RAW_DATA_PATH=a", "PROMPTGEN_VOCAB_FILENAME=v", "PROMPTGEN_SERVICE_HOST=10.0.0.1"}
	o = s.ok("version")
	for _, want := range []string{
		"did you mean PROMPTGEN_BATCH_SIZE?", "did you mean PROMPTGEN_CORPUS?", "did you mean PROMPTGEN_OUT or PROMPTGEN_VOCAB?",
		"PROMPTGEN_SERVICE_HOST is not known and is ignored\"\n", // nothing is near
	} {
		if !strings.Contains(o.err, want) {
			t.Errorf("no %q in %s", want, o.err)
		}
	}
	// A variable is for the commands that have a use for it, and no fault of others.
	s.write("vocab.txt", "[SEP]\n[CLS]\n[MASK]\n[PAD]\n[UNK]\n好\n")
	s.environ = []string{"PROMPTGEN_CORPUS=a.txt", "PROMPTGEN_OUT=o"}
	s.ok("tokenize", "--vocab", "vocab.txt", "--text", "好")
	s.environ = []string{"PROMPTGEN_EPOCHS=many"}
	s.fails(fault.CodeUsage, []string{"PROMPTGEN_EPOCHS must be a whole number"}, "train")
	s.environ = []string{"PROMPTGEN_THREADS=5000"}
	s.fails(fault.CodeUsage, []string{"PROMPTGEN_THREADS must be between 0"}, "version")
	s.environ = []string{"PROMPTGEN_JSON=1"}
	if o := s.ok("version"); !strings.HasPrefix(o.out, "{") {
		t.Errorf("PROMPTGEN_JSON: %s", o.out)
	}
	if o := s.ok("version", "--json=false"); strings.HasPrefix(o.out, "{") {
		t.Errorf("the flag must win: %s", o.out)
	}
}

// brokenWriter is a bug in a box.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { panic("broken\nin two") }

// A bug must end as one line that says where, never as a trace.
func TestPanicIsOneLine(t *testing.T) {
	var err bytes.Buffer
	code := run(t.Context(), streams{nil, brokenWriter{}, &err}, []string{"version", "--json"}, nil)
	s := &shell{t: t}
	s.checkFailure(outcome{code, "", err.String()}, fault.CodeFailed, []string{"internal error: broken in two", "main_test.go:"}, []string{"version"})
}

// Help goes to standard output and names every command and flag.
func TestHelp(t *testing.T) {
	s := newShell(t)
	for _, args := range [][]string{{}, {"help"}, {"--help"}, {"-h"}} {
		o := s.ok(args...)
		for _, c := range newApp(streams{}, nil).commands {
			if !strings.Contains(o.out, c.Name) {
				t.Errorf("%v does not name %s", args, c.Name)
			}
		}
	}
	for _, args := range [][]string{{"help", "train"}, {"train", "--help"}, {"--epochs", "3", "train", "-h"}} {
		if o := s.ok(args...); !strings.Contains(o.out, "--grad-accum") {
			t.Errorf("%v: %s", args, o.out)
		}
	}
	for _, c := range newApp(streams{}, nil).commands {
		for line := range strings.Lines(s.ok(c.Name, "--help").out) {
			if strings.Count(line, "(default:") > 1 {
				t.Errorf("%s: two defaults of one flag: %s", c.Name, line)
			}
		}
	}
	// The tests' binary does not know the source it was built of, which is said.
	if o := s.ok("version"); !strings.Contains(o.out, "unknown\n") {
		t.Errorf("version: %s", o.out)
	}
	if o := s.ok("--version"); !strings.Contains(o.out, "promptgen") {
		t.Errorf("--version: %s", o.out)
	}
}
