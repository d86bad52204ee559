# Simulated models with structured covariances by nlme and glmmTMB, the best of several
# optimisers; a dense search where neither has the structure (ad, adh, hetar1).
#   python structured_models.py FOLDER && Rscript structured_models.R FOLDER structured_models.json
# Of each: log-likelihood, coefficients, their standard errors, and V of the first level.
suppressMessages({library(nlme); library(glmmTMB); library(jsonlite)})
args <- commandArgs(TRUE)
models <- fromJSON(file.path(args[1], "models.json"))
only <- if (length(args) > 2) as.integer(strsplit(args[3], ",")[[1]]) else models$number
quiet <- function(e) tryCatch(suppressWarnings(suppressMessages(e)), error = function(e) NULL)
best <- function(fits) {
  fits <- Filter(Negate(is.null), fits)
  lls <- vapply(fits, function(f) as.numeric(logLik(f)), 0)
  if (!length(lls) || all(!is.finite(lls))) return(NULL)
  fits[[which.max(lls)]]
}
answer <- function(ll, b, se, V, software)
  list(loglik = ll, coef = as.numeric(b), se = as.numeric(se), V = V, software = software)

## glmmTMB ---------------------------------------------------------------------------
tmb <- function(m, d) {
  d$f <- factor(d$f); d$g <- factor(d$g)
  T <- m$visits; word <- m$word; map <- list()
  # one standard deviation for all, where this version has no word for it
  if (word %in% c("homdiag", "homcs", "homtoep")) {
    extra <- c(homdiag = 0, homcs = 1, homtoep = T - 1)[[word]]
    map <- list(theta = factor(c(rep(1, T), seq_len(extra) + 1)))
    word <- substring(word, 4)
  }
  if (word == "hetar1") word <- "us"  # of two visits
  d$place <- if (word %in% c("ou", "exp", "gau", "mat")) numFactor(d$t) else d$f
  term <- if (word == "rr") "rr(0 + place | g, d = 1)" else sprintf("%s(0 + place | g)", word)
  left <- if (m$family == "binomial") "cbind(k, m - k)" else "y"
  f <- as.formula(sprintf("%s ~ x + %s", left, term))
  fam <- switch(m$family, poisson = poisson(), binomial = binomial(), nbinom2 = nbinom2(),
                gamma = Gamma("log"), gaussian())
  one <- function(ctl) quiet(glmmTMB(f, d, family = fam, REML = m$reml, map = map, control = ctl))
  tight <- list(iter.max = 3000, eval.max = 4000, rel.tol = 1e-14, x.tol = 1e-12)
  fit <- one(glmmTMBControl(optCtrl = tight))
  if (is.null(fit) || fit$fit$convergence != 0 || !isTRUE(fit$sdr$pdHess))
    fit <- best(list(fit, one(glmmTMBControl(
      optimizer = optim, optArgs = list(method = "BFGS"), optCtrl = list(maxit = 1000, reltol = 1e-14)))))
  if (is.null(fit)) return(NULL)
  S <- matrix(VarCorr(fit)$cond[[1]], ncol = ncol(VarCorr(fit)$cond[[1]]))
  X <- model.matrix(~ x, d); y <- d$y
  se <- sqrt(diag(vcov(fit)$cond))
  first <- seq_len(T)
  if (m$family == "") {
    # standard errors at V, which glmmTMB's differ from by those of the variances
    code <- as.integer(if (is.factor(d$place)) factor(d$place) else d$place)
    V <- S[code, code] * outer(d$g, d$g, "==") + sigma(fit)^2 * diag(nrow(d))
    se <- sqrt(diag(solve(crossprod(X, solve(V, X)))))
  }
  answer(as.numeric(logLik(fit)), fixef(fit)$cond, se, S[first, first], "glmmTMB")
}

## nlme ------------------------------------------------------------------------------
structures <- function(m) {
  T <- m$visits
  word <- sub("\\(.*", "", sub(" .*", "", m$residual))
  joined <- if (grepl("+", m$residual, fixed = TRUE)) sub(".*\\+ ", "", m$residual) else ""
  if (grepl("^var", word)) { joined <- m$residual; word <- "" }
  arma <- function(p) corARMA(form = ~ v | g, p = p, q = 0)
  cor <- switch(word, ar1 = , ar1h = corAR1(form = ~ v | g), cs = , csh = corCompSymm(form = ~ v | g),
    us = corSymm(form = ~ v | g), toep = , toeph = arma(T - 1),
    arma11 = corARMA(form = ~ v | g, p = 1, q = 1), car1 = corCAR1(form = ~ t | g),
    sp_exp = corExp(form = ~ t | g), sp_gau = corGaus(form = ~ t | g), NULL)
  weights <- list()
  if (m$weights) weights <- c(weights, list(varFixed(~ iw)))
  if (word %in% c("us", "toeph", "ar1h", "csh")) weights <- c(weights, list(varIdent(form = ~ 1 | v)))
  own <- switch(sub("\\(.*", "", joined), varident = varIdent(form = if (grepl("(a)", joined, fixed = TRUE)) ~ 1 | a else ~ 1 | f),
    varpower = varPower(form = ~ s), varexp = varExp(form = ~ s), NULL)
  if (!is.null(own)) weights <- c(weights, list(own))
  list(cor = cor, weights = if (!length(weights)) NULL else if (length(weights) == 1) weights[[1]] else do.call(varComb, weights))
}
one_nlme <- function(m, d, f) {
  if (!is.null(d$w)) d$iw <- 1 / d$w
  s <- structures(m); method <- if (m$reml) "REML" else "ML"
  beside <- grepl("(1 | g)", m$formula, fixed = TRUE)
  fit <- best(lapply(c("nlminb", "optim"), function(opt) quiet(if (beside) {
    ctl <- lmeControl(opt = opt, maxIter = 500, msMaxIter = 2000, msMaxEval = 5000, tolerance = 1e-12, msTol = 1e-14, niterEM = 50)
    lme(f, d, random = ~ 1 | g, correlation = s$cor, weights = s$weights, method = method, control = ctl)
  } else {
    ctl <- glsControl(opt = opt, maxIter = 500, msMaxIter = 2000, tolerance = 1e-12, msTol = 1e-14)
    gls(f, d, correlation = s$cor, weights = s$weights, method = method, control = ctl)
  })))
  if (is.null(fit)) return(NULL)
  rows <- which(d$g == d$g[1])
  C <- if (is.null(s$cor)) diag(length(rows)) else corMatrix(fit$modelStruct$corStruct)[[as.character(d$g[1])]]
  sd <- sigma(fit) / (if (is.null(s$weights)) rep(1, nrow(d)) else varWeights(fit$modelStruct$varStruct))[rows]
  V <- sd * t(sd * C)
  if (beside) V <- V + as.numeric(VarCorr(fit)[1, 1])
  b <- if (beside) fixef(fit) else coef(fit)
  se <- sqrt(diag(if (beside) fit$varFix else fit$varBeta))
  if (!m$reml) { n <- nrow(d); p <- length(b); se <- se * sqrt((n - p) / n) }
  answer(as.numeric(logLik(fit)), b, se, V, "nlme")
}
nlme_fit <- function(m, d) {
  if (m$part != "grouped") return(one_nlme(m, d, y ~ x + v))
  # every coefficient an arm's own: the likelihood is a product over arms
  p <- one_nlme(m, d[d$a == "p", ], y ~ x); q <- one_nlme(m, d[d$a == "q", ], y ~ x)
  if (is.null(p) || is.null(q)) return(NULL)
  both <- sqrt(p$se^2 + q$se^2)
  d1 <- q$coef - p$coef
  answer(p$loglik + q$loglik, c(p$coef[1], d1[1], p$coef[2], d1[2]),
         c(p$se[1], both[1], p$se[2], both[2]), p$V, "nlme, arm by arm")
}

## dense -----------------------------------------------------------------------------
dense <- function(m, d) {
  T <- m$visits; noise <- m$part == "effects"
  covariance <- function(par) {
    if (m$word == "hetar1") { sd <- exp(par[1:T]); r <- rep(tanh(par[T + 1]), T - 1) }
    else if (m$word == "adh") { sd <- exp(par[1:T]); r <- tanh(par[T + seq_len(T - 1)]) }
    else { sd <- rep(exp(par[1]), T); r <- tanh(par[1 + seq_len(T - 1)]) }
    C <- diag(T)
    for (i in 1:(T - 1)) for (j in (i + 1):T) C[i, j] <- C[j, i] <- prod(r[i:(j - 1)])
    sd * t(sd * C)
  }
  f <- if (noise) y ~ x else y ~ x + v
  beside <- grepl("(1 | g)", m$formula, fixed = TRUE)
  X <- model.matrix(f, d); y <- d$y
  w <- if (m$weights) d$w else rep(1, nrow(d))
  groups <- split(seq_len(nrow(d)), d$g)
  of <- function(par, full = FALSE) {
    S <- covariance(par); extra <- if (noise) exp(2 * par[length(par)]) else 0
    XX <- 0; Xy <- 0; yy <- 0; logdet <- 0
    for (r in groups) {
      V <- S[d$v[r], d$v[r]] / sqrt(outer(w[r], w[r])) + extra * diag(length(r))
      L <- tryCatch(chol(V), error = function(e) NULL)
      if (is.null(L)) return(1e10)
      A <- backsolve(L, cbind(X[r, , drop = FALSE], y[r]), transpose = TRUE)
      P <- crossprod(A); k <- ncol(X)
      XX <- XX + P[1:k, 1:k]; Xy <- Xy + P[1:k, k + 1]; yy <- yy + P[k + 1, k + 1]
      logdet <- logdet + 2 * sum(log(diag(L)))
    }
    b <- tryCatch(solve(XX, Xy), error = function(e) NULL)
    if (is.null(b)) return(1e10)
    n <- nrow(d); k <- ncol(X)
    value <- (n - m$reml * k) * log(2 * pi) + logdet + yy - sum(b * Xy) +
      m$reml * as.numeric(determinant(XX)$modulus)
    if (!is.finite(value)) value <- 2e10
    if (full) list(b = b, se = sqrt(diag(solve(XX))), V = S) else value / 2
  }
  T1 <- if (m$word == "ad") 1 else T
  start <- c(rep(0, T1), rep(0.5, if (m$word == "hetar1") 1 else T - 1), if (noise) -0.5)
  par <- start
  for (i in 1:3) {
    par <- optim(par, of, method = "BFGS", control = list(maxit = 2000, reltol = 1e-15))$par
    par <- nlminb(par, of, control = list(iter.max = 2000, eval.max = 4000, rel.tol = 1e-15))$par
  }
  out <- of(par, TRUE)
  V <- out$V
  if (m$weights) { r <- groups[[1]]; V <- V / sqrt(outer(w[r], w[r])) }
  answer(-of(par), out$b, out$se, V, "dense")
}

# glmmTMB may end R itself: what was found is kept, and what was begun is not begun anew
out <- if (file.exists(args[2])) fromJSON(args[2], simplifyDataFrame = FALSE) else list()
begun <- file.path(args[1], "begun.txt")
done <- if (file.exists(begun)) as.integer(readLines(begun)) else integer()
for (i in which(models$number %in% only & !(models$number %in% done))) {
  m <- as.list(models[i, ])
  write(m$number, begun, append = TRUE)
  d <- read.csv(file.path(args[1], paste0(m$number, ".csv")))
  found <- quiet(
    if (m$word %in% c("ad", "adh") || (m$word == "hetar1" && m$family == "")) dense(m, d)
    else if (m$part %in% c("effects", "counts")) tmb(m, d) else nlme_fit(m, d))
  cat(m$number, m$part, m$word, if (is.null(found)) "none" else found$loglik, "\n")
  if (is.null(found)) next
  out[[as.character(m$number)]] <- found
  writeLines(toJSON(out, auto_unbox = TRUE, digits = NA), args[2])
}
