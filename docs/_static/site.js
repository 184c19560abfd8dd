// A page that is opened as a file may not read others, and so the search cannot quote them; it finds them all the same.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
