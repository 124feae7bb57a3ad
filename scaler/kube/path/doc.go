// Package path drives scaler.Path on Kubernetes. It puts gateways into a Service's path, and takes
// them out, by an EndpointSlice of its own, gives each Service port a number on every gateway, and
// pushes what it has assigned to the gateways.
//
// # How numbers are agreed
//
// A number names a Service port on every gateway, so no two may have the same. Several owners (shards
// of a controller) give numbers without asking one another. They agree through their EndpointSlices:
//
//  1. The owner writes a claim to the number into its slice, as an annotation.
//  2. It waits until its own cache shows that write.
//  3. If no other slice in the cache claims the number or has it, the owner confirms: it moves the
//     number into the slice's ports, by an update that fails if the slice has changed since. If
//     another has it, the owner claims a different one.
//
// Only confirmed numbers are pushed. Two slices cannot both confirm one number: the API server orders
// all writes of slices, and a cache follows that order. Let the claim of X be written before that of
// Y. The cache that shows Y's claim then shows X's as well, so Y does not confirm while X claims. If X
// had given its claim up by then, its next claim comes after Y's, and the same holds with X and Y
// exchanged. The argument needs no memory, so a restart changes nothing. docs/adr/0007 has it in full.
package path
