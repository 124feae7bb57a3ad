package scrape

// Parse is parse, for its tests.
var Parse = parse
