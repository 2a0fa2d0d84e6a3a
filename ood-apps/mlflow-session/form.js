'use strict';
// What belongs to this visit; Open OnDemand keeps form.yml.erb for hours. Text only, never markup, and nothing is sent.
var prefix = 'batch_connect_session_context_';

function field(name) {
  return document.getElementById(prefix + name);
}

// A link names the project whose runs are to be shown.
function fill() {
  var named = new URLSearchParams(window.location.search).get('store');
  if (field('store') && named && named.charAt(0) === '/') {
    field('store').value = named;
  }
}

// A number that is at the limit of one partition, Open OnDemand's page moves to the limit of the next, however high that is. What was
// asked for stays, as far as it can.
function keep() {
  var names = ['cores', 'memory_gb', 'hours'], wanted = {};
  names.filter(field).forEach(function (name) { wanted[name] = field(name).value; });
  document.addEventListener('change', function (event) {
    Object.keys(wanted).forEach(function (name) {
      var target = field(name);
      if (event.target === target) {
        wanted[name] = target.value;
      } else if (target.max !== '') {
        target.value = Math.max(target.min, Math.min(target.max, wanted[name]));
      }
    });
  });
}

$(document).ready(function () {
  keep();
  fill();
});
