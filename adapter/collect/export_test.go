package collect

// Parse is parse, for its tests.
var Parse = parse
