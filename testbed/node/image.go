package node

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// findImage gives the local program an image name stands for. A name that is not listed with its
// tag or digest is looked up without them.
func findImage(images map[string]string, name string) (string, bool) {
	if program, ok := images[name]; ok {
		return program, true
	}
	bare, _, _ := strings.Cut(name, "@")
	if i := strings.LastIndexByte(bare, ':'); i > strings.LastIndexByte(bare, '/') {
		bare = bare[:i]
	}
	program, ok := images[bare]
	return program, ok
}

// invocation is what a container executes: a host program to bind into the container at Program
// (Source is "" if it is taken from the container's own file system), and the arguments with
// argv[0].
type invocation struct {
	Source  string
	Program string
	Args    []string
}

// binDir is where an image's program is found in its container.
const binDir = "/usr/local/bin"

// invocationOf applies a container's command and args to its image. The image's entry point is its
// program. A command replaces it if its first word is another image or program of the map; a word
// that means the image's own program, by its base name, is that program, whatever folder the real
// image has it in; any other word is a program of the container's file system, found when it
// starts.
func invocationOf(images map[string]string, c *v1.Container, lookup func(string) (string, bool)) (invocation, error) {
	entry, ok := findImage(images, c.Image)
	if !ok {
		return invocation{}, fmt.Errorf("image %q is not known to this node", c.Image)
	}
	var words []string
	for _, w := range c.Command {
		words = append(words, expand(w, lookup))
	}
	var args []string
	for _, a := range c.Args {
		args = append(args, expand(a, lookup))
	}
	mapped := func(program string, rest []string) invocation {
		in := path.Join(binDir, filepath.Base(program))
		return invocation{Source: program, Program: in, Args: append([]string{in}, append(rest, args...)...)}
	}
	if len(words) == 0 {
		return mapped(entry, nil), nil
	}
	first, rest := words[0], words[1:]
	if filepath.Base(first) == filepath.Base(entry) {
		return mapped(entry, rest), nil
	}
	if program, ok := findImage(images, first); ok {
		return mapped(program, rest), nil
	}
	for _, program := range images {
		if first == program || (!strings.Contains(first, "/") && first == filepath.Base(program)) {
			return mapped(program, rest), nil
		}
	}
	return invocation{Program: first, Args: append(words, args...)}, nil
}
