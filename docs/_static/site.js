// A page that is opened as a file may not read others, and so the search cannot quote them; it finds them all the same.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;

// The theme's arrows that open a part of the contents have no name that a screen reader could say.
addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll(".toctree-l1 > details > summary, .toctree-l2 > details > summary")) {
    const link = summary.closest("li").querySelector("a");
    summary.setAttribute("aria-label", `Contents of ${link.textContent.trim()}`);
  }
});
