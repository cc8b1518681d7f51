"use strict";
// Without scripts all pictures stand side by side.
document.documentElement.classList.add("js");

function show(range) {
  const before = Number(range.value);
  range.parentElement.style.setProperty("--cut", before + "%");
  range.setAttribute(
    "aria-valuetext", before + " % before, " + (100 - before) + " % after");
}

for (const section of document.querySelectorAll("section")) {
  const ranges = section.querySelectorAll(".compare input");
  for (const range of ranges) {
    range.addEventListener("input", () => show(range));
    show(range);
  }
  const all = section.querySelector(".all input");
  all?.addEventListener("input", () => {
    for (const range of ranges) {
      range.value = all.value;
      show(range);
    }
  });
}
