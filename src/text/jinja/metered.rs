//! A template's syntax tree rebuilt so that everything it makes passes a [`super::Meter`]: operators'
//! results, literals and what is written become arguments of the filters [`MADE`], [`PART`] and
//! [`FACTOR`]. No constant expression is left, which minijinja would compute while it compiles.

use minijinja::machinery::Span;
use minijinja::machinery::ast::{self, BinOpKind, CallArg, Expr, Spanned, Stmt};
use minijinja::value::Value;

/// The filter of new values. No template can spell these names as filters.
pub(super) const MADE: &str = "+made";
/// The filter of what becomes an attribute of a namespace.
pub(super) const PART: &str = "+part";
/// The filter of what is multiplied.
pub(super) const FACTOR: &str = "+factor";
/// The filter that fails with the text it is given.
pub(super) const REFUSED: &str = "+refused";
/// The variable that holds the body of a call block.
const CALLER: &str = "+caller";

/// `statement` with everything metered.
pub(super) fn stmt<'s>(statement: &Stmt<'s>) -> Stmt<'s> {
    match statement {
        Stmt::Template(s) => {
            Stmt::Template(Spanned::new(ast::Template { children: stmts(&s.children) }, s.span()))
        }
        Stmt::EmitExpr(s) => emit(written(&s.expr), s.span()),
        Stmt::EmitRaw(s) => emit(apply(MADE, constant(s.raw, s.span())), s.span()),
        Stmt::ForLoop(s) => {
            let node = ast::ForLoop {
                target: target(&s.target),
                iter: expr(&s.iter),
                filter_expr: s.filter_expr.as_ref().map(expr),
                recursive: s.recursive,
                body: stmts(&s.body),
                else_body: stmts(&s.else_body),
            };
            Stmt::ForLoop(Spanned::new(node, s.span()))
        }
        Stmt::IfCond(s) => {
            let node = ast::IfCond {
                expr: expr(&s.expr),
                true_body: stmts(&s.true_body),
                false_body: stmts(&s.false_body),
            };
            Stmt::IfCond(Spanned::new(node, s.span()))
        }
        Stmt::WithBlock(s) => {
            let assignments = s.assignments.iter().map(|(to, value)| (target(to), expr(value)));
            let node = ast::WithBlock { assignments: assignments.collect(), body: stmts(&s.body) };
            Stmt::WithBlock(Spanned::new(node, s.span()))
        }
        Stmt::Set(s) => {
            let node = ast::Set { target: target(&s.target), expr: part(&s.target, &s.expr) };
            Stmt::Set(Spanned::new(node, s.span()))
        }
        Stmt::SetBlock(s) => {
            let node = ast::SetBlock {
                target: target(&s.target),
                filter: s.filter.as_ref().map(expr),
                body: stmts(&s.body),
            };
            Stmt::SetBlock(Spanned::new(node, s.span()))
        }
        Stmt::AutoEscape(s) => {
            let node = ast::AutoEscape { enabled: expr(&s.enabled), body: stmts(&s.body) };
            Stmt::AutoEscape(Spanned::new(node, s.span()))
        }
        Stmt::FilterBlock(s) => {
            let node = ast::FilterBlock { filter: expr(&s.filter), body: stmts(&s.body) };
            Stmt::FilterBlock(Spanned::new(node, s.span()))
        }
        Stmt::Block(s) => lone(s.span()),
        Stmt::Import(s) => lone(s.span()),
        Stmt::FromImport(s) => lone(s.span()),
        Stmt::Extends(s) => lone(s.span()),
        Stmt::Include(s) => lone(s.span()),
        Stmt::Macro(s) => Stmt::Macro(macro_node(s, s.name)),
        Stmt::CallBlock(s) => call_block(s),
        Stmt::Continue(s) => Stmt::Continue(Spanned::new(ast::Continue, s.span())),
        Stmt::Break(s) => Stmt::Break(Spanned::new(ast::Break, s.span())),
        Stmt::Do(s) => Stmt::Do(Spanned::new(ast::Do { call: call(&s.call) }, s.span())),
    }
}

fn stmts<'s>(statements: &[Stmt<'s>]) -> Vec<Stmt<'s>> {
    statements.iter().map(stmt).collect()
}

/// What fails, in place of what only makes sense among several templates.
fn lone<'s>(span: Span) -> Stmt<'s> {
    emit(apply(REFUSED, constant("blocks and other templates are not supported", span)), span)
}

/// A call block as what it means: a macro, which a call is given, whose result is written.
fn call_block<'s>(block: &Spanned<ast::CallBlock<'s>>) -> Stmt<'s> {
    let span = block.span();
    let mut args = call_args(&block.call.args);
    args.push(CallArg::Kwarg("caller", Expr::Var(Spanned::new(ast::Var { id: CALLER }, span))));
    let called = Spanned::new(ast::Call { expr: expr(&block.call.expr), args }, span);
    let body = vec![
        Stmt::Macro(macro_node(&block.macro_decl, CALLER)),
        emit(apply(MADE, Expr::Call(called)), span),
    ];
    Stmt::WithBlock(Spanned::new(ast::WithBlock { assignments: vec![], body }, span))
}

fn macro_node<'s>(m: &Spanned<ast::Macro<'s>>, name: &'s str) -> Spanned<ast::Macro<'s>> {
    let node = ast::Macro {
        name,
        args: m.args.iter().map(target).collect(),
        defaults: m.defaults.iter().map(expr).collect(),
        body: stmts(&m.body),
    };
    Spanned::new(node, m.span())
}

fn emit<'s>(expr: Expr<'s>, span: Span) -> Stmt<'s> {
    Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr }, span))
}

/// What is written, metered whatever it is. Only a loop that calls itself stays as it is: it is no
/// value, and writes what its statements do.
fn written<'s>(e: &Expr<'s>) -> Expr<'s> {
    match e {
        Expr::Call(c) if matches!(&c.expr, Expr::Var(v) if v.id == "loop") => expr(e),
        _ => apply(MADE, expr(e)),
    }
}

/// The value of an assignment, which may go into a namespace unless it gets a name of its own.
fn part<'s>(to: &Expr<'s>, value: &Expr<'s>) -> Expr<'s> {
    match to {
        Expr::Var(_) => expr(value),
        _ => apply(PART, expr(value)),
    }
}

/// What an assignment assigns to: names, attributes, lists of them.
fn target<'s>(e: &Expr<'s>) -> Expr<'s> {
    match e {
        Expr::List(l) => {
            let items = l.items.iter().map(target).collect();
            Expr::List(Spanned::new(ast::List { items }, l.span()))
        }
        _ => expr(e),
    }
}

/// `e` with everything metered that is made in it.
fn expr<'s>(e: &Expr<'s>) -> Expr<'s> {
    match e {
        Expr::Var(v) => Expr::Var(Spanned::new(ast::Var { id: v.id }, v.span())),
        Expr::Const(c) => constant(c.value.clone(), c.span()),
        Expr::Slice(s) => {
            let node = ast::Slice {
                expr: expr(&s.expr),
                start: s.start.as_ref().map(expr),
                stop: s.stop.as_ref().map(expr),
                step: s.step.as_ref().map(expr),
            };
            apply(MADE, Expr::Slice(Spanned::new(node, s.span())))
        }
        Expr::UnaryOp(u) => {
            let not = matches!(u.op, ast::UnaryOpKind::Not);
            let op = if not { ast::UnaryOpKind::Not } else { ast::UnaryOpKind::Neg };
            Expr::UnaryOp(Spanned::new(ast::UnaryOp { op, expr: expr(&u.expr) }, u.span()))
        }
        Expr::BinOp(b) => bin_op(b),
        Expr::Compare(c) => {
            let op = |o: &ast::CompareOp<'s>| ast::CompareOp { op: o.op, expr: operand(&o.expr) };
            let node = ast::Compare { expr: operand(&c.expr), ops: c.ops.iter().map(op).collect() };
            apply(MADE, Expr::Compare(Spanned::new(node, c.span())))
        }
        Expr::IfExpr(i) => {
            let node = ast::IfExpr {
                test_expr: expr(&i.test_expr),
                true_expr: expr(&i.true_expr),
                false_expr: i.false_expr.as_ref().map(expr),
            };
            Expr::IfExpr(Spanned::new(node, i.span()))
        }
        Expr::Filter(f) => {
            let node = ast::Filter {
                name: f.name,
                expr: f.expr.as_ref().map(expr),
                args: call_args(&f.args),
            };
            Expr::Filter(Spanned::new(node, f.span()))
        }
        Expr::Test(t) => {
            let node = ast::Test { name: t.name, expr: expr(&t.expr), args: call_args(&t.args) };
            Expr::Test(Spanned::new(node, t.span()))
        }
        Expr::GetAttr(g) => Expr::GetAttr(Spanned::new(
            ast::GetAttr { expr: expr(&g.expr), name: g.name },
            g.span(),
        )),
        Expr::GetItem(g) => {
            let node =
                ast::GetItem { expr: expr(&g.expr), subscript_expr: expr(&g.subscript_expr) };
            Expr::GetItem(Spanned::new(node, g.span()))
        }
        Expr::Call(c) => Expr::Call(call(c)),
        Expr::List(l) => {
            let node = ast::List { items: l.items.iter().map(operand).collect() };
            apply(MADE, Expr::List(Spanned::new(node, l.span())))
        }
        Expr::Map(m) => {
            let node = ast::Map {
                keys: m.keys.iter().map(operand).collect(),
                values: m.values.iter().map(operand).collect(),
            };
            apply(MADE, Expr::Map(Spanned::new(node, m.span())))
        }
    }
}

fn bin_op<'s>(b: &Spanned<ast::BinOp<'s>>) -> Expr<'s> {
    let side = |e: &Expr<'s>| match b.op {
        BinOpKind::Mul => apply(FACTOR, expr(e)),
        _ => operand(e),
    };
    let node = ast::BinOp { op: b.op, left: side(&b.left), right: side(&b.right) };
    let whole = Expr::BinOp(Spanned::new(node, b.span()));
    match b.op {
        // One of its sides, which is not new.
        BinOpKind::ScAnd | BinOpKind::ScOr => whole,
        _ => apply(MADE, whole),
    }
}

/// A part of an expression that is computed while compiling if all its parts are constants.
fn operand<'s>(e: &Expr<'s>) -> Expr<'s> {
    match e {
        Expr::Const(_) => apply(MADE, expr(e)),
        _ => expr(e),
    }
}

fn call<'s>(c: &Spanned<ast::Call<'s>>) -> Spanned<ast::Call<'s>> {
    Spanned::new(ast::Call { expr: expr(&c.expr), args: call_args(&c.args) }, c.span())
}

fn call_args<'s>(args: &[CallArg<'s>]) -> Vec<CallArg<'s>> {
    let one = |arg: &CallArg<'s>| match arg {
        CallArg::Pos(e) => CallArg::Pos(expr(e)),
        CallArg::Kwarg(name, e) => CallArg::Kwarg(name, expr(e)),
        CallArg::PosSplat(e) => CallArg::PosSplat(expr(e)),
        CallArg::KwargSplat(e) => CallArg::KwargSplat(expr(e)),
    };
    args.iter().map(one).collect()
}

fn constant<'s>(value: impl Into<Value>, span: Span) -> Expr<'s> {
    Expr::Const(Spanned::new(ast::Const { value: value.into() }, span))
}

fn apply<'s>(filter: &'s str, to: Expr<'s>) -> Expr<'s> {
    let span = to.span();
    Expr::Filter(Spanned::new(ast::Filter { name: filter, expr: Some(to), args: vec![] }, span))
}
