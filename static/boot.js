// Starts the page. What fails here fails before the page can speak for itself.
import init from '/app.js';

init().catch((error) => {
  const place = document.querySelector('.booting span');
  if (place) place.textContent = `${error.message ?? error}`;
  throw error;
});
