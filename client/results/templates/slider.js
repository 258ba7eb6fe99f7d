// Sliders: what lies below one and has `data-at` shows its value at the slider's place, and its mark moves there.
for (const slider of document.querySelectorAll("[data-slider]")) {
  const range = slider.querySelector("input");
  const move = () => {
    const place = Math.round((range.value - range.min) / range.step);
    for (const each of slider.querySelectorAll("[data-at]")) {
      each.textContent = JSON.parse(each.dataset.at)[place];
    }
    for (const mark of slider.querySelectorAll(".mark")) {
      const x = Number(mark.dataset.from) + (Number(mark.dataset.width) * range.value) / 100;
      mark.setAttribute("x1", x);
      mark.setAttribute("x2", x);
    }
    range.setAttribute("aria-valuetext", `${range.value}%`);
  };
  range.addEventListener("input", move);
  range.parentElement.hidden = false;
  move();
}
