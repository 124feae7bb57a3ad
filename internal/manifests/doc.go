// Package manifests holds tests of what deploy/ installs: the rendered chart and the examples.
package manifests
